"""The table of every network: ``python -m bench.parity.zoo results/parity.md``.

What is measured is kept beside the table as JSON, so that the command can be stopped and goes on
from there.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.catalog.backends import EXPORTER
from bench.cli.progress import ProofLines
from bench.cli.run_clock import WorkClock, duration
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbones
from bench.network.blueprint import STATE_ROLES, Blueprint
from bench.network.blueprint_files import blueprint_path
from bench.parity.model import PARTS, PairProof, Part
from bench.parity.plan import DTYPES, Question, environments_of, subject_of
from bench.parity.run import FLOORS_FROM, prove
from bench.parity.scheduler import (
    MOST_BYTES,
    MOST_JOBS,
    ProofTask,
    jobs_on,
    most_bytes,
    side_by_side,
    threads_of,
)
from bench.parity.tolerances import LEVELS
from bench.report.tables.runs import markdown
from bench.spec.run import Precision
from bench.storage.cache import cache_root
from bench.storage.code_digest import proof_digest
from bench.storage.results import write_json
from bench.workers.process import Interpreters, Stopped, ask
from bench.workers.tasks import ModelsTask

BACKENDS = ("torch", "keras-tensorflow")
DEVICE = "cpu"
LARGEST = 100_000_000
"""Parameters up to which ten steps are taken in float64; larger ones give logits in float32."""
NEED_BYTES = MOST_BYTES // 2
"""Of a worker: two at a time. More than 100 million parameters, in float32 and without training,
need no more than 100 million in float64 with it."""
LARGER = {"torchvision:inception_v3": 139}
"""Input sizes of those that are chaotic at their least: its last stage has one pixel at 75 px."""
NUDGES = 1
"""``parity NAME`` takes the worst of three."""
TIMM = (
    "timm:resnet18",
    "timm:tf_efficientnet_b0",
    "timm:mobilenetv3_small_050",
    "timm:convnext_atto",
    "timm:regnety_004",
    "timm:densenet121",
    "timm:vit_tiny_patch16_224",
)
"""One of each family of timm."""
ZooEntry = dict[str, Any]


def names(interpreters: Interpreters) -> list[str]:
    """All of torchvision's, and timm's examples.

    Raises:
        Unavailable: The exporter's packages are not installed.
    """
    answer = ask(EXPORTER, ModelsTask(), interpreters, "listing torchvision's networks")
    return [*answer.models, *TIMM]


def measure(name: str, interpreters: Interpreters) -> ZooEntry:
    """One network's row."""
    question = _question(name, "fp64", interpreters)
    row: ZooEntry = {
        "model": name,
        "environments": [e.environment_id for e in environments_of(question)],
        "harness": proof_digest(),
        "parameters": None,
        "notes": [],
        "pair": None,
        "refused": None,
        "failed": None,
    }
    try:
        subject = subject_of(name, "fp64", question)
        (folder,) = {blueprint_path(item.blueprint) for item in subject.items.values()}
        blueprint = Blueprint.load(folder)
        row["parameters"] = _parameters(blueprint)
        row["notes"] = list(blueprint.notes)
        if row["parameters"] > LARGEST:
            pair = _forward(name, interpreters, row["notes"])
        else:
            pair = _prove(name, question)
        row["pair"] = pair.model_dump(mode="json")
        shutil.rmtree(folder)  # nobody asks for it again
    except UserError as error:
        row["refused"] = str(error)
    except Unavailable as error:
        row["failed"] = str(error)
    except Stopped:
        raise
    except Exception as error:  # one network's trouble is not the others'
        traceback.print_exc()
        row["failed"] = f"{type(error).__name__}: {error}"
    return row


def _forward(name: str, interpreters: Interpreters, notes: list[str]) -> PairProof:
    """The forward pass alone, in float32; where a last bit moves that by more than its tolerance,
    in float64."""
    pair = _prove(name, _question(name, "fp32", interpreters, ("forward",)))
    blunt = [x for x in pair.levels if not x.passed]
    if not blunt or any(x.differs for x in blunt):
        return pair
    sharp = _prove(name, _question(name, "fp64", interpreters, ("forward",)))
    if not sharp.levels:  # it wants more memory than there is
        return pair
    notes.append(f"float32 says nothing: floor of {blunt[0].name} {blunt[0].floor:.1e}")
    return sharp


def _prove(name: str, question: Question) -> PairProof:
    subject = subject_of(name, question.precisions[0], question)
    (pair,) = prove(subject, question, ProofLines(1.0))
    return pair


def _question(
    name: str,
    precision: Precision,
    interpreters: Interpreters,
    parts: tuple[Part, ...] = PARTS,
) -> Question:
    return Question(
        backbones=(name,),
        policies=("retrain_all",),
        # Without steps the one with fewer moments: those of 600 million parameters are 5 GB.
        optimizers=("adamw",) if "steps" in parts else ("sgd",),
        precisions=(precision,),
        backends=BACKENDS,
        head="original",
        px=LARGER.get(name),
        device=DEVICE,
        interpreters=interpreters,
        cache=cache_root(),
        parts=parts,
        nudges=NUDGES,
        threads=threads_of(jobs_on(DEVICE, MOST_JOBS)),
    )


def _parameters(blueprint: Blueprint) -> int:
    state = {t for _, role, t in blueprint.named_tensors() if role in STATE_ROLES}
    return sum(math.prod(s) for tensor, s in blueprint.shapes.items() if tensor not in state)


def table(rows: Sequence[ZooEntry]) -> str:
    """The rows as Markdown, with a line that counts them."""
    counted = Counter(verdict(row) for row in rows)
    verdicts = ", ".join(f"{counted[word]} {word}" for word in VERDICTS if counted[word])
    head = f"{len(rows)} networks: {verdicts}."
    headings = ["model", "parameters", "px", "dtype", "logits", "gradients", "ten losses",
                "floor", "loss fell", "parity", "remarks"]  # fmt: skip
    aligned = ["left", "right", "right", "left", *["right"] * 5, "left", "left"]
    lines = [_cells(row) for row in rows]
    return f"{head}\n\n{tabulate(lines, headings, 'pipe', disable_numparse=True, colalign=aligned)}"


def _cells(row: ZooEntry) -> list[str]:
    count = "–" if row["parameters"] is None else f"{row['parameters']:,}"
    if row["pair"] is None:
        words = markdown((row["refused"] or row["failed"]).splitlines()[0])
        return [row["model"], count, *["–"] * 7, verdict(row), words]
    pair = PairProof.model_validate(row["pair"])
    levels = {level.name: level for level in pair.levels}
    figures = [
        "–" if name not in levels else _number(levels[name].value)
        for name in ("logits", "gradients", "losses")
    ]
    floor = _number(levels["losses"].floor) if "losses" in levels else "–"
    fell = "–" if pair.loss_fall is None else f"{pair.loss_fall:.0%}"
    weights = [] if pair.weights == "random" else [f"{pair.weights} weights"]
    remarks = [*weights, *row["notes"], *([pair.reason] if pair.reason else [])]
    return [row["model"], count, str(pair.px), pair.dtype, *figures, floor, fell, verdict(row),
            markdown("; ".join(remarks))]  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value else "0"


INTRODUCTION = """# Parity of {backends}

Written by `make parity-zoo`. Random weights with BatchNorm values of their own (pretrained ones
where they lie on the machine, which the remarks say), {dtype}, the whole network trained with AdamW
on one fixed batch, its learning rate falling every step. Figures are largest relative differences;
the floor is how far the ten losses of {floors} alone move when every weight is nudged by one last
bit, once. Networks of more than {largest:,} parameters give the logits in float32. See
docs/parity.md for what is compared.

"""


def main(path: Path) -> None:
    """Measure what is missing and write the table after each network; then once more, one at a
    time, those whose worker died: two large ones may want more memory than there is."""
    interpreters = Interpreters({})
    wanted = names(interpreters)
    here = [e.environment_id for e in environments_of(_question("vgg16", "fp64", interpreters))]
    done = {
        row["model"]: row
        for row in _kept(path.with_suffix(".json"))
        if row["model"] in wanted
        and row["environments"] == here
        and row.get("harness") == proof_digest()
    }
    for jobs in (jobs_on(DEVICE, len(wanted)), 1):
        left = [name for name in wanted if name not in done or _died(done[name])]
        entries = backbones(left, interpreters)  # one worker describes them all
        left.sort(key=lambda name: -entries[name].min_px)  # the slowest first: ViTs have one size
        tasks = [ProofTask(NEED_BYTES, partial(measure, name, interpreters)) for name in left]
        clock = WorkClock(float(len(left)))
        for number, row in side_by_side(tasks, jobs, most_bytes()):
            done[left[number]] = row
            clock.done += 1
            print(f"[{clock.done:.0f}/{len(left)}, {duration(clock.left_s())} left] "
                  f"{left[number]}: {verdict(row)}", file=sys.stderr, flush=True)  # fmt: skip
            _write(path, [done[name] for name in wanted if name in done], len(wanted))


def _died(row: ZooEntry) -> bool:
    """Whether a worker ended without an answer."""
    return not row["refused"] and not (row["pair"] and row["pair"]["levels"])


def _write(path: Path, rows: list[ZooEntry], wanted: int) -> None:
    write_json(path.with_suffix(".json"), {"rows": rows})
    words = INTRODUCTION.format(
        backends=" and ".join(BACKENDS),
        dtype=DTYPES["fp64"],
        largest=LARGEST,
        floors=FLOORS_FROM,
    )
    left = wanted - len(rows)
    more = f"\n{left} more are not measured yet: `make parity-zoo` goes on.\n" if left else ""
    path.write_text(f"{words}{table(rows)}\n{more}", encoding="utf-8")


VERDICTS = ("shown", "shown (forward pass)", "not shown", "refused", "failed")


def verdict(row: ZooEntry) -> str:
    """One of ``VERDICTS``."""
    if row["pair"] is None:
        return "refused" if row["refused"] else "failed"
    pair = PairProof.model_validate(row["pair"])
    if not pair.passed:
        return "not shown"
    return "shown" if len(pair.levels) == len(LEVELS) else "shown (forward pass)"


def _kept(path: Path) -> list[ZooEntry]:
    try:
        rows: list[ZooEntry] = json.loads(path.read_bytes())["rows"]
    except (OSError, ValueError, KeyError):
        return []
    return rows


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/parity.md"))
    except (UserError, Unavailable) as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nstopped: what is measured is kept, the same command goes on from there")
