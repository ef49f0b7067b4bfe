"""Notes on a report's numbers: their limits, how to read them, and why runs failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.analysis.findings import Findings
from bench.analysis.groups import Contest, SeedGroup, question_of_any_backend
from bench.analysis.rows import UNSTEADY, Row, twins
from bench.catalog.policies import POLICIES
from bench.report.format import ABSENT, number_of
from bench.storage.results import StoredRun

CAVEATS = {
    "photos": "photos (stand-in): its test images are crops of 18 photographs, the class is the "
    "photograph, and many crops overlap. The intervals treat images as independent, so they are "
    "too narrow even for other crops (about 1.5 times in the suite standard). They do not apply to "
    "other photographs.",
}
"""Data set → limits of its intervals."""


def limits(found: Findings) -> list[str]:
    """Return notes on what the results cannot show."""
    names = dict.fromkeys(run.spec.case.dataset.name for run in found.rows)
    caveats = [CAVEATS[name] for name in names if name in CAVEATS]
    return [*caveats, *_same_images(found.contests), *at_the_edge(found.groups)]


def _same_images(contests: Sequence[Contest]) -> list[str]:
    """Return a note if questions share test images and so are not independent."""
    asked = [c.row for c in contests if c.comparisons]
    images = {_images(c) for c in contests if c.comparisons}
    if len(asked) < 2 or len(images) == len(asked):
        return []
    experiments = set(map(question_of_any_backend, asked))
    repeated = len({row.spec.backend for row in asked}) > 1 and len(experiments) < len(asked)
    backends = (
        f" Backends repeat the same {len(experiments)} on the same images." if repeated else ""
    )
    return [
        f"These {number_of(len(asked), 'question')} share {number_of(len(images), 'test set')} "
        f"and are not independent.{backends}"
    ]


def _images(contest: Contest) -> str:
    """Return a hash of the test images' classes, or of the data set if there are no answers."""
    for group in contest.groups:
        for answers in group.answers.values():
            return str(answers.labels_sha256)
    return str(contest.row.dataset.content_hash)


def at_the_edge(groups: Sequence[SeedGroup]) -> list[str]:
    """Return a note on learning rates that were the highest or lowest tried: the best rate may lie
    beyond, so that the policy is compared at less than its best."""
    tuned = [(group, run) for group in groups for run in group.rows if _grid(run)]
    high = [group for group, run in tuned if run.result.learning_rate == max(_grid(run))]
    low = sum(run.result.learning_rate == min(_grid(run)) for _, run in tuned)
    if not high and not low:
        return []
    policies = dict.fromkeys(group.row.spec.policy.name for group, _ in tuned)
    each = ", ".join(
        f"{name} {count} of {sum(group.row.spec.policy.name == name for group, _ in tuned)}"
        for name in policies
        if (count := sum(group.row.spec.policy.name == name for group in high))
    )
    return [
        f"learning rates at the edge of the grid: in {len(high)} of {len(tuned)} tuned runs "
        f"validation chose the highest rate, in {low} the lowest."
        f"{f' Highest: {each}.' if each else ''} "
        "Such a policy may do better with a rate that was not tried."
    ]


def _grid(run: StoredRun) -> list[float]:
    """Return the learning rates tried; empty if there was no choice."""
    rates = [trial.learning_rate for trial in run.result.tuning]
    return rates if len(set(rates)) > 1 and run.result.learning_rate is not None else []


SAME_EXPERIMENT = ("blueprint_sha256", "initial_state_sha256", "batches_sha256")
"""Fields that must be equal in rows that differ only in the backend."""


def reasons(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why runs are not ok."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if not row.is_ok:
            why = (row["failure"] or {}).get("message", "")
            found.setdefault(f"{row.result.status}: {why}", []).append(row.result.run_id)
    return [
        f"{why} [{len(ids)} run{'s' if len(ids) > 1 else ''}: {ids[0]}{' …' if ids[1:] else ''}]"
        for why, ids in found.items()
    ]


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Return notes for the table of runs."""
    notes = []
    if any("stand-in" in row.dataset.qualifier for row in rows):
        notes.append(
            "stand-in: a small embedded data set instead of a real one. Small, medium and large "
            "are scaled down accordingly."
        )
    if any("synthetic" in row.dataset.qualifier for row in rows):
        notes.append("synthetic pages: generated images. Accuracy says nothing about real pages.")
    random = sum(row.weights == "random" and row.spec.policy.name != "from_scratch" for row in rows)
    if random:
        notes.append(
            f"weights random: {random} of {len(rows)} runs used random weights instead of "
            "pretrained ones. Their accuracy is meaningless."
        )
    for field, what in (("train_images_per_s", "training"), ("infer_images_per_s", "inference")):
        short = sum(_is_short(row, field) for row in rows)
        if short:
            notes.append(
                f"{ABSENT} {field.split('_')[0]} images/s: {short} of {len(rows)} runs were too "
                f"short for a steady rate of {what}."
            )
    skipped = sum(bool(row.result.unreadable_images) for row in rows)
    if skipped:
        notes.append(
            f"unreadable images were left out in {skipped} of {len(rows)} runs (at most "
            f"{max(row.result.unreadable_images or 0 for row in rows)} images), because of "
            "--skip-unreadable."
        )
    notes += [note] if (note := _cached(rows)) else []
    swept = [row for row in rows if row.result.sweep_runs is not None]
    if swept:
        notes.append(
            f"{ABSENT} in {len(swept)} of {len(rows)} runs: their heads were trained together, so "
            "they have no times of their own. sweep_s of --json is the time of all."
        )
    if any(row.result.model_flop_utilisation is not None for row in rows):
        notes.append(
            "model FLOP utilisation: FLOP/s of the training steps at train images/s, divided by "
            "the rate of a large matrix product with the same framework, precision and GPU."
        )
    notes += [note] if (note := _phased(rows)) else []
    tuned = [row for row in rows if row.result.learning_rate is not None]
    if tuned:
        notes.append(
            f"tuned: in {len(tuned)} of {len(rows)} runs the learning rate was chosen on the "
            "validation images, from the same grid around each policy's default."
        )
    unsteady = [row for row in rows if row.unsteady]
    if unsteady:
        notes.append(
            f"unsteady: in {len(unsteady)} of {len(rows)} runs slow steps, or inference, took over "
            f"{UNSTEADY:g} times as long as usual. The machine was probably busy with other work. "
            f"Compare no speeds of {', '.join(row.result.run_id for row in unsteady[:3])}"
            f"{' …' if unsteady[3:] else ''}."
        )
    if any(row.spec.recipe.precision in ("bf16", "fp16") for row in rows):
        notes.append(
            "bf16, fp16: matched in all but precision. Each framework chooses which operations it "
            "computes in low precision."
        )
    notes += [note] if (note := unproved(rows)) else []
    if any(row.spec.mode == "native" for row in rows):
        notes.append(
            "native: each framework's own weights, preprocessing, optimizer and initialisation. "
            "Differences between such rows are not due to the framework alone."
        )
    notes += [f"NOT THE SAME EXPERIMENT: {pair}" for pair in mismatches(rows)]
    places = {(row.spec.backend, row.spec.device, row.result.environment_id) for row in rows}
    if len(places) > len({place[:2] for place in places}):
        notes.append("rows come from several environments (machine, versions or device).")
    return notes


def _phased(rows: Sequence[Row]) -> str | None:
    phased = [row for row in rows if row["phases"]]
    if not phased:
        return None
    policies = ", ".join(dict.fromkeys(row.spec.policy.name for row in phased))
    return (
        f"phases: {policies} unfreeze the network in steps ({len(phased)} of {len(rows)} runs). "
        "effective images/s covers all epochs, with values computed once but without compilation. "
        "trainable parameters are those of the last phase. fit s includes the set-up of every "
        "phase but the first. See result.json for each phase."
    )


def _cached(rows: Sequence[Row]) -> str | None:
    cached = [row for row in rows if row.result.prefix_values and not row["phases"]]
    if not cached:
        return None
    reused = sum(row.result.prefix_values == "reused" for row in cached)
    others = f" {reused} reused the values, and count the time they took." if reused else ""
    return (
        f"effective images/s: in {len(cached)} of {len(rows)} runs the values of the frozen part "
        f"were computed once, not in every epoch.{others} The rate is images of all epochs over "
        f"the time of both. These runs have no train images/s ({ABSENT}); --prefix-cache off "
        "measures whole steps."
    )


def _is_short(row: Row, field: str) -> bool:
    """Return True if a run lacks a rate that it should have."""
    known = row[field] or (field == "train_images_per_s" and row.result.effective_images_per_s)
    return row.is_ok and row.result.sweep_runs is None and not known


def unproved(rows: Sequence[Row]) -> str | None:
    """Return the command that proves the rows marked as not shown; None if there are none."""
    open_rows = [row for row in rows if row.parity == "not_shown"]
    if not open_rows:
        return None

    def values(field: str) -> list[str]:
        return list(dict.fromkeys(str(row[field]) for row in open_rows))

    own = [b for b in values("boundary") if b not in {p.boundary for p in POLICIES.values()}]
    boundary = f" --boundary {own[0]}" if own else ""
    command = (
        f"python run_bench.py parity {' '.join(map(_backbone_argument, values('backbone')))} "
        f"--policy {','.join(values('policy'))} --optimizer {','.join(values('optimizer'))} "
        f"--backends {','.join(values('backend'))}{boundary}"
    )
    return (
        f"parity not shown for {number_of(len(open_rows), 'row')}: no proof on this machine that "
        f"the backends compute the same. To prove it: {command}"
    )


def _backbone_argument(backbone: str) -> str:
    """Return a backbone as the command line takes it; rows do not know a user's folder."""
    own = backbone.removeprefix("module:")
    return backbone if own == backbone else f"module:FOLDER/{own}"


def mismatches(rows: Sequence[Row]) -> list[str]:
    """Return a line for each group of rows that differ only in the backend, yet did not start from
    the same numbers or train on the same batches.

    After an upgrade, versions of one backend may start from different numbers. So a row is named
    only if another backend has no row, in any environment, with the same start. Native rows are
    left out: they never were the same experiment.
    """
    return [
        f"{field} differs between {', '.join(sorted(_names(odd, group)))}"
        for group in twins(row for row in rows if row.spec.mode != "native")
        for field in SAME_EXPERIMENT
        if (odd := _without_match(group, field))
    ]


def _without_match(group: Sequence[Row], field: str) -> list[Row]:
    """Return the rows whose value another backend has nowhere, and the rows of that backend."""
    values: dict[str, set[str | None]] = {}
    for row in group:
        values.setdefault(row.spec.backend, set()).add(row[field])
    lacking = [(r, {b for b, v in values.items() if r[field] not in v}) for r in group]
    backends = {backend for _, others in lacking for backend in others}
    return [row for row, others in lacking if others or row.spec.backend in backends]


def _names(rows: Sequence[Row], group: Sequence[Row]) -> list[str]:
    """Return ids of runs, with the environment if ``group`` has several of one id."""
    count = Counter(row.result.run_id for row in group)
    return [
        row.result.run_id
        + (f" (environment {row.result.environment_id})" if count[row.result.run_id] > 1 else "")
        for row in rows
    ]
