"""``speed``: measure training speed, and show its history."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.cli.gate_progress import end_line
from bench.cli.options import SpeedOptions
from bench.cli.output import show, tell
from bench.cli.speed_suite import (
    kept_launches,
    launch_watch,
    measuring_place,
    parse_target,
    software_by_backend,
    software_words,
    suite_name,
    timed_cases,
    wanted_backends,
)
from bench.errors import UserError, choose
from bench.gate.baseline import LEAST_LAUNCHES
from bench.speed.baseline import Baseline, check_unused, new_baseline, save_baseline
from bench.speed.cases import suite_size
from bench.speed.measure import measure_suite
from bench.speed.values import benchmarks_of, value_of
from bench.storage.text_files import json_text

BASELINE_LAUNCHES = 6
"""Launches that tell the spread between them, without which nothing can be compared."""
UNNAMED = "now"
"""Name of launches that are not stored."""


def speed_command(options: SpeedOptions) -> bool:
    """Measure a suite, print it, and store it if a name is given."""
    if options.what:
        choose("word after `speed`", options.what, ("history",))
        from bench.cli.speed_history import history_command

        return history_command(options)
    if options.out is not None:
        raise UserError("--out has no effect here.", "It is for `speed history`.")
    target = parse_target(options.target)
    backends = wanted_backends(options.backends, target)
    suite = suite_name(options.suite, target)
    if options.save_baseline is not None:
        check_unused(options.baselines, options.save_baseline, force=options.force)
    place = measuring_place(options.python, options.device)
    software = software_by_backend(backends, target, place)
    cases = timed_cases(suite, list(software), target, place, details=True)
    usual = BASELINE_LAUNCHES if target is not None else suite_size(suite, place.device).launches
    if options.save_baseline is not None:
        usual = max(usual, BASELINE_LAUNCHES)
    launches = options.launches or usual
    name = options.save_baseline or UNNAMED
    kept = kept_launches(options.baselines, name, suite, software, cases)
    try:
        found = measure_suite(cases, place, launches, kept, launch_watch())
    finally:
        end_line()
    baseline = new_baseline(name, suite, place.device, cases, software, found)
    path = None
    if options.save_baseline is not None:
        path = save_baseline(baseline, options.baselines, force=options.force)
    kept.remove()
    show(json_text(speed_document(baseline, path)) if options.as_json else _text(baseline))
    if path is not None:
        tell(f"stored in {path}")
    return True


def speed_rows(baseline: Baseline) -> list[dict[str, Any]]:
    """Return each benchmark with its figures over launches."""
    rows = []
    images = {
        f"{measure} {name}": count
        for launch in baseline.launches
        for name, answer in launch.cases.items()
        for measure, count in answer.images.items()
    }
    for name, seconds in baseline.all_values().items():
        windows = [window for own in baseline.windows(name) for window in own]
        logs = [math.log(value) for value in seconds]
        case = name.partition(" ")[2]
        answers = [launch.cases[case] for launch in baseline.launches if case in launch.cases]
        rows.append(
            {
                "name": name,
                "seconds": statistics.median(seconds),
                "images_per_s": images[name] / statistics.median(seconds),
                "spread": statistics.stdev(logs) if len(logs) > 1 else None,
                "launches": len(seconds),
                "windows": len(windows),
                "disturbed_windows": sum(window.disturbed_by is not None for window in windows),
                "setup_s": statistics.median(answer.setup_s for answer in answers),
                "compile_s": statistics.median(answer.compile_s for answer in answers),
                "peak_device_bytes": max(
                    (a.peak_device_bytes for a in answers if a.peak_device_bytes is not None),
                    default=None,
                ),
            }
        )
    return rows


def speed_document(baseline: Baseline, path: Path | None) -> dict[str, Any]:
    """Return the document of ``speed --json``."""
    return {
        "schema_version": baseline.schema_version,
        "suite": baseline.suite,
        "device": baseline.device,
        "recorded_at": baseline.recorded_at,
        "commit": baseline.commit,
        "software": {k: v.model_dump(mode="json") for k, v in baseline.software.items()},
        "stored": None if path is None else str(path),
        "benchmarks": speed_rows(baseline),
    }


def _text(baseline: Baseline) -> str:
    rows = [
        [
            row["name"], f"{row['seconds'] * 1000:.2f}", f"{row['images_per_s']:,.0f}",
            "–" if row["spread"] is None else f"{row['spread']:.1%}", row["launches"],
            f"{row['setup_s']:.2f}", f"{row['compile_s']:.2f}",
        ]
        for row in speed_rows(baseline)
    ]  # fmt: skip
    headings = ["benchmark", "ms", "images/s", "spread of launches", "launches", "set-up s",
                "compile s"]  # fmt: skip
    table = tabulate(rows, headings, "simple", disable_numparse=True)
    lines = [software_words(baseline.software), "", table]
    disturbed = {
        value.disturbed_by
        for launch in baseline.launches
        for windows in benchmarks_of(launch).values()
        if (value := value_of(windows)).disturbed_by is not None
    }
    if disturbed:
        lines += ["", f"Some launches were disturbed: {'; '.join(sorted(disturbed))}."]
    each = Counter((launch.backend, launch.precision) for launch in baseline.launches)
    if min(each.values()) < LEAST_LAUNCHES:
        lines += ["", f"Fewer than {LEAST_LAUNCHES} launches say nothing about the spread between "
                  "launches: gate --baseline cannot compare them."]  # fmt: skip
    return "\n".join(lines)
