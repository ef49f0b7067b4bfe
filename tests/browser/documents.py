"""Documents of reports, made by hand: small, hostile, and of many runs."""

from __future__ import annotations

import html
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import SCHEMA_VERSION, __version__
from bench.environment import project_root
from bench.report.page import read_document
from bench.report.rows import MEASURED, rows_of
from bench.result import RunResult
from bench.spec import Environment, RunSpec
from bench.store import StoredRun
from tests.conftest import ENVIRONMENT, SPEC, merged

Document = dict[str, Any]

BACKENDS = ("torch", "keras-tensorflow")
POLICIES = ("freeze_all", "fine_tune_last", "fine_tune_all", "retrain_all", "from_scratch")
BACKBONES = ("efficientnet_lite0", "squeezenet1_1", "vgg16", "resnet50")
CASES = ((1, "small", "similar"), (2, "large", "similar"), (3, "medium", "similar"),
         (4, "large", "not_similar"))  # fmt: skip
CLASSES = tuple(f"class {letter}" for letter in "abcdefghijklmnopqr")

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"' onmouseover=alert(3) x='",
    "{{ 7 * 7 }} {% raw %}",
    "<!--<script>",
    "&lt;b&gt; & \u2028 \u2029",
    "javascript:alert(4)",
    "</textarea></style></title><h1>big</h1>",
    "__proto__",
)
"""Names that a folder of images, or a user's own network, could bring along."""
NOT_UTF_8 = "folder-\udcff"
"""As Python reads the name of a folder that is no UTF-8."""


def small() -> Document:
    """Sixteen runs: four cases, two policies, two backends; one failed."""
    runs = [
        _run(case=case, policy=policy, backend=backend, number=number)
        for number, (case, policy, backend) in enumerate(
            (case, policy, backend)
            for case in CASES
            for policy in ("freeze_all", "fine_tune_all")
            for backend in BACKENDS
        )
    ]
    runs[5] = _failed(runs[5], "oom", "SIGKILL", "memory ran out")
    return document(runs)


def published() -> Document:
    """Of the suite ``standard``, as it was run: real names and figures, of usual lengths."""
    return read_document(project_root() / "results" / "examples" / "standard" / "report.html")


def few() -> Document:
    """Two runs, of few classes; one failed: as little as has one of everything."""
    dataset = {"classes": ["a", "b", "c"]}
    done, lost = (_run(number, backend=BACKENDS[number], dataset=dataset) for number in range(2))
    return document([done, _failed(lost, "crashed", "ValueError", "no such layer")])


def many(count: int) -> Document:
    """A grid of ``count`` runs, each with as much beside it as real ones have."""
    runs = [
        _run(
            case=CASES[number % 4],
            policy=POLICIES[number // 4 % 5],
            backend=BACKENDS[number // 20 % 2],
            backbone=BACKBONES[number // 40 % 4],
            seed=number // 160,
            number=number,
        )
        for number in range(count)
    ]
    return document(runs)


def hostile() -> Document:
    """Every name and text is one of ``HOSTILE``."""
    runs = []
    for number, text in enumerate(HOSTILE):
        dataset = {"name": text, "label": text, "classes": [text, "b"]}
        backend = BACKENDS[number % 2]
        run = _run(number, backend=backend, backbone=text, policy=text, dataset=dataset)
        runs.append(_failed(run, "crashed", text, f"at {text}") if number % 3 == 0 else run)
    made = document(runs)
    for run in made["runs"].values():
        run |= {"log_tail": "\n".join(HOSTILE), "repeat": " ".join(HOSTILE)}
    lines = list(HOSTILE)
    cells = [
        {"size": size, "similarity": similarity, "prescribed": lines[number], "text": lines[number],
         "best": lines[number : number + 1 + number % 2], "is_tie": number % 4 == 1,
         "is_prescribed": [False] * (1 + number % 2)}
        for number, (size, similarity) in enumerate(_grid())
    ]  # fmt: skip
    columns = [{"name": line, "heading": line, "right": False} for line in lines]
    row = [{"text": line, "sort": line} for line in lines]
    table = {"name": lines[0], "title": lines[0], "caption": lines[1], "columns": columns,
             "rows": [row, row], "notes": lines}  # fmt: skip
    return made | {
        "title": lines[0], "asked": lines[0], "answer": lines[:3], "notes": lines,
        "problems": [*lines, NOT_UTF_8], "map": {**made["map"], "cells": cells},
        "tables": [table, *made["tables"]],
        "knobs": [{"knob": line, "values": dict.fromkeys(made["environments"], line)}
                  for line in lines],
        "cite": {"text": lines[0], "bibtex": lines[0]},
        "side_by_side": {"tables": [table], "sentences": lines},
    }  # fmt: skip


def document(runs: Sequence[StoredRun]) -> Document:
    """The document of runs, as ``bench.report`` makes it."""
    rows = rows_of(runs)
    environments = {r.environment.environment_id: r.environment for r in runs}
    return {
        "schema_version": SCHEMA_VERSION, "kind": "thawbench report", "thawbench": __version__,
        "written": "2026-11-26", "title": "Thawbench report",
        "asked": "All four cases, with EfficientNet-Lite0 and three more, through PyTorch and "
        "Keras.",
        "answer": [
            "With 216 similar images, fine_tune_all is 4.1 points better than freeze_all (95% "
            "interval 1.2 to 7.0).",
            "Keras and PyTorch tie in accuracy: −0.2 points (−1.4 to 1.0).",
            "PyTorch trains 1.31 times as fast (1.28 to 1.34) on this machine.",
        ],
        "notes": ["photos is a stand-in for a user's own data.", "No parity was shown here."],
        "problems": [],
        "tables": [_cases(), _speeds(), _costs(), _runs_table(rows)],
        "map": _map(),
        "plots": _plots(rows),
        "rows": rows,
        "measured": list(MEASURED),
        "runs": {f"{r.result.run_id}/{r.result.environment_id}": _stored(r) for r in runs},
        "environments": {k: e.model_dump(mode="json") for k, e in environments.items()},
        "knobs": [
            {"knob": "layout", "values": _values(environments, "channels_last", "NHWC")},
            {"knob": "threads", "values": _values(environments, "2", "2")},
            {"knob": "compilation", "values": _values(environments, "none", "XLA")},
        ],
        "cite": {"text": "Thawbench 0.1.0, 2026.",
                 "bibtex": "@software{thawbench,\n  title = {Thawbench},\n  year = {2026}\n}"},
        "side_by_side": None,
    }  # fmt: skip


def _run(
    number: int = 0,
    case: tuple[int, str, str] = CASES[0],
    policy: str = "freeze_all",
    dataset: dict[str, Any] | None = None,
    **changes: Any,
) -> StoredRun:
    """A run whose numbers are drawn from ``number``."""
    numbers = random.Random(number)
    position, size, similarity = case
    changes |= {
        "case": {"number": position, "size": size, "similarity": similarity,
                 "dataset": {"classes": list(CLASSES), **(dataset or {})}},
        "policy": {"name": policy},
    }  # fmt: skip
    spec = RunSpec.model_validate(merged(SPEC, changes))
    is_torch = spec.backend == "torch"
    packages = {"numpy": "2.4.6", **({"torch": "2.14.1"} if is_torch else {"keras": "3.15.1"})}
    where = {"backend": spec.backend, "packages": packages, "variables": {"OMP_NUM_THREADS": "2"}}
    environment = Environment.model_validate(merged(ENVIRONMENT, where))
    rates = [numbers.uniform(90, 110) for _ in range(30)]
    result = RunResult(
        run_id=spec.run_id,
        environment_id=environment.environment_id,
        status="ok",
        test_top1=numbers.uniform(0.4, 0.95),
        test_loss=numbers.uniform(0.2, 1.5),
        val_top1_by_epoch=[1 - 1 / (2 + epoch) * numbers.uniform(0.8, 1) for epoch in range(12)],
        train_loss_by_epoch=[2 / (1 + epoch) * numbers.uniform(0.8, 1) for epoch in range(12)],
        total_parameters=3_371_024,
        trainable_parameters=numbers.choice([23_058, 400_000, 3_371_024]),
        frozen_parameters=3_347_966,
        state_values=42_016,
        train_images_per_s=rates[15],
        train_images_per_s_windows=rates,
        infer_images_per_s=numbers.uniform(200, 400),
        step_s_p50=0.31,
        step_s_p95=0.35,
        setup_s=1.5,
        compile_s=2.25,
        fit_s=numbers.uniform(10, 90),
        test_s=3.25,
        peak_host_bytes=1_234_567_890,
        initial_state_sha256="ab" * 32,
        batches_sha256="cd" * 32,
        blueprint_sha256="ef" * 32,
    )
    return StoredRun(spec, environment, result, Path("runs"))


def _failed(run: StoredRun, status: str, kind: str, message: str) -> StoredRun:
    result = {
        "run_id": run.result.run_id,
        "environment_id": run.result.environment_id,
        "status": status,
        "failure": {"kind": kind, "message": message},
    }
    return StoredRun(run.spec, run.environment, RunResult.model_validate(result), run.folder)


def _stored(run: StoredRun) -> dict[str, Any]:
    classes = list(run.spec.case.dataset.classes)
    is_ok = run.result.status == "ok"
    matrix = [[40 if a == b else (a * b) % 3 for a in range(len(classes))]
              for b in range(len(classes))]  # fmt: skip
    log = "\n".join(f"epoch {n}: train loss {2 / n:.4f}, val top-1 {1 - 1 / (n + 1):.4f}"
                    for n in range(1, 26))  # fmt: skip
    return {
        "spec": run.spec.model_dump(mode="json"),
        "result": run.result.model_dump(
            mode="json", exclude={*MEASURED, "knobs", "phases"}, exclude_defaults=True
        ),
        "log_tail": log,
        "repeat": f"python run_bench.py run --cases {run.spec.case.number} --backbones "
        f"{run.spec.backbone} --policies {run.spec.policy.name} --backends {run.spec.backend} "
        f"--seeds {run.spec.seed}",
        "confusion": matrix if is_ok else None,
    }


def _values(environments: dict[str, Environment], torch: str, keras: str) -> dict[str, str]:
    return {k: torch if e.backend == "torch" else keras for k, e in environments.items()}


def _cell(text: str, sort: Any = None) -> dict[str, Any]:
    return {"text": text, "sort": text if sort is None else sort}


def _cases() -> dict[str, Any]:
    columns = [
        {"name": "case", "heading": "case", "right": True},
        {"name": "size", "heading": "size (images)", "right": False},
        {"name": "best", "heading": "best policy", "right": False},
        {"name": "test_top1", "heading": "test top-1", "right": True},
        {"name": "article", "heading": "the article says", "right": False},
    ]
    values = [
        (1, "small (216)", "freeze_all, fine_tune_last (tie)", 0.858, "freeze_all"),
        (2, "large (1,800)", "fine_tune_all", 0.9312, "fine_tune_all"),
        (3, "medium (640)", "fine_tune_last", 0.9041, "fine_tune_last"),
        (4, "large (4,000)", "retrain_all", 0.9876, "retrain_all"),
    ]
    rows = [
        [_cell(str(n), n), _cell(size), _cell(best), _cell(f"{top1:.1%} ± 1.2", top1), _cell(says)]
        for n, size, best, top1, says in values
    ]
    return {"name": "cases", "title": "The four cases", "columns": columns, "rows": rows,
            "caption": "Best policy of each case, over three seeds, with 95% intervals.",
            "notes": ["± is half the 95% interval over seeds."]}  # fmt: skip


def _speeds() -> dict[str, Any]:
    columns = [
        {"name": "backend", "heading": "backend", "right": False},
        {"name": "train", "heading": "train images/s", "right": True},
    ]
    rows = [
        [_cell("torch"), _cell("1,012", 1012.3)],
        [_cell("keras-tensorflow"), _cell("987", 987.1)],
        [_cell("keras-jax"), {"text": "–", "sort": None}],
        [_cell("keras-torch"), _cell("99.5", 99.5)],
    ]
    return {"name": "speed", "title": "Speed", "caption": "Training, end to end.",
            "columns": columns, "rows": rows, "notes": []}  # fmt: skip


def _costs() -> dict[str, Any]:
    """Of as many rows as have a filter."""
    columns = [
        {"name": "policy", "heading": "policy", "right": False},
        {"name": "epochs", "heading": "epochs", "right": True},
    ]
    names = (f"{policy}, {backend}" for policy in POLICIES for backend in BACKENDS)
    rows = [[_cell(name), _cell(str(n), n)] for n, name in enumerate(names, 1)]
    return {"name": "cost", "title": "Cost", "caption": "Epochs to get there.", "columns": columns,
            "rows": rows, "notes": []}  # fmt: skip


RUN_COLUMNS = (
    "case", "size", "train_images", "similarity", "dataset_label", "backbone", "policy", "backend",
    "seed", "test_top1", "train_images_per_s", "infer_images_per_s", "total_parameters",
    "trainable_parameters", "fit_s", "status", "run_id",
)  # fmt: skip


def _runs_table(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "runs", "title": "All runs", "caption": f"{len(rows)} runs, one a row.",
        "columns": [
            {"name": name, "heading": name.replace("_", " "),
             "right": any(isinstance(row[name], (int, float)) for row in rows)}
            for name in RUN_COLUMNS
        ],
        "rows": [[_run_cell(row[name]) for name in RUN_COLUMNS] for row in rows],
        "notes": [],
    }  # fmt: skip


def _run_cell(value: Any) -> dict[str, Any]:
    if value is None:
        return {"text": "–", "sort": None}
    if isinstance(value, float):
        return {"text": f"{value:.3g}", "sort": value}
    return {"text": f"{value:,}" if isinstance(value, int) else value, "sort": value}


def _grid() -> list[tuple[str, str]]:
    return [(size, similarity) for similarity in ("similar", "not_similar")
            for size in ("small", "medium", "large")]  # fmt: skip


def _map() -> dict[str, Any]:
    best = {
        ("small", "similar"): (["freeze_all", "fine_tune_last"], "freeze_all"),
        ("medium", "similar"): (["fine_tune_last"], "fine_tune_last"),
        ("large", "similar"): (["retrain_all"], "fine_tune_all"),
        ("large", "not_similar"): (["retrain_all", "fine_tune_all", "from_scratch"], "retrain_all"),
        ("small", "not_similar"): (["fine_tune_all"], None),
    }
    cells = []
    for size, similarity in _grid():
        names, says = best.get((size, similarity), ([], None))
        cells.append({"size": size, "similarity": similarity, "prescribed": says, "best": names,
                      "is_tie": size != "large", "is_prescribed": [n == says for n in names],
                      "text": "85.8% (3 seeds)" if names else None})  # fmt: skip
    return {"sizes": ["small", "medium", "large"], "similarities": ["similar", "not_similar"],
            "cells": cells}  # fmt: skip


def _plots(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts are escaped as plotly wants it: it knows no entity for quotes."""
    ok = [row for row in rows if row["status"] == "ok"]
    policies = list(dict.fromkeys(row["policy"] for row in ok))
    plots = []
    for name, title in (("fit_s", "training time (s)"), ("trainable_parameters", "parameters"),
                        ("train_images_per_s", "images/s")):  # fmt: skip
        data = []
        for policy in policies:
            own = [row for row in ok if row["policy"] == policy]
            label = html.escape(policy, quote=False)
            data.append({
                "type": "scatter", "mode": "markers", "name": label,
                "x": [row[name] for row in own], "y": [row["test_top1"] for row in own],
                "text": [html.escape(row["run_id"] + " " + row["backbone"], quote=False)
                         for row in own],
                "hovertemplate": "%{text}<br>%{x:.3s}, %{y:.1%}<extra></extra>",
            })  # fmt: skip
        layout = {"xaxis": {"title": {"text": title}, "type": "log"},
                  "yaxis": {"title": {"text": "test top-1"}, "tickformat": ".0%"},
                  "height": 420}  # fmt: skip
        plots.append({"name": f"accuracy_{name}", "title": f"Accuracy against {title}",
                      "caption": "Each dot is a run; up and to the left is better.",
                      "figure": {"data": data, "layout": layout}})  # fmt: skip
    label = [html.escape(policy, quote=False) for policy in policies]
    bars = [{"type": "bar", "orientation": "h", "x": [number + 1], "y": [name], "name": name,
             "visible": number == 0} for number, name in enumerate(label)]  # fmt: skip
    menu = [
        {
            "label": name,
            "method": "restyle",
            "args": [{"visible": [name == other for other in label]}],
        }
        for name in label
    ]
    layout = {"updatemenus": [{"buttons": menu}], "legend": {"orientation": "h"}}
    plots.append({"name": "throughput", "title": "Throughput", "caption": "Images a second.",
                  "figure": {"data": bars, "layout": layout}})  # fmt: skip
    return plots
