"""What the numbers of a report do not reach to, found from the numbers themselves.

What a reader of the table of runs must know, and why runs failed."""

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
    "photograph, and many crops overlap. The intervals take images as independent, so they are "
    "too narrow even for other crops of these photographs (in the runs of the suite standard about "
    "one and a half times, beside taking the photographs' cells as independent), and say nothing "
    "of others.",
}
"""Data set → what its intervals cannot speak of."""


def limits(found: Findings) -> list[str]:
    """Sentences for the page."""
    names = dict.fromkeys(run.spec.case.dataset.name for run in found.rows)
    told = [CAVEATS[name] for name in names if name in CAVEATS]
    return [*told, *_same_images(found.contests), *at_the_edge(found.groups)]


def _same_images(contests: Sequence[Contest]) -> list[str]:
    """Questions that share their test images are not so many experiments."""
    asked = [c.row for c in contests if c.comparisons]
    images = {_images(c) for c in contests if c.comparisons}
    if len(asked) < 2 or len(images) == len(asked):
        return []
    experiments = set(map(question_of_any_backend, asked))
    repeated = len({row.spec.backend for row in asked}) > 1 and len(experiments) < len(asked)
    backends = (
        f", and backends repeat the same {len(experiments)} on the same images" if repeated else ""
    )
    return [
        f"{number_of(len(asked), 'question')} are not so many experiments: they are asked of "
        f"{number_of(len(images), 'set')} of test images{backends}."
    ]


def _images(contest: Contest) -> str:
    """Hash of the test images' classes; of the data set where there are no answers."""
    for cell in contest.groups:
        for answers in cell.answers.values():
            return str(answers.labels_sha256)
    return str(contest.row.dataset.content_hash)


def at_the_edge(cells: Sequence[SeedGroup]) -> list[str]:
    """Learning rates that were the highest or the lowest of those tried: the best may lie beyond,
    and a policy whose rate stops there is compared at less than its best."""
    tuned = [(cell, run) for cell in cells for run in cell.rows if _grid(run)]
    high = [cell for cell, run in tuned if run.result.learning_rate == max(_grid(run))]
    low = sum(run.result.learning_rate == min(_grid(run)) for _, run in tuned)
    if not high and not low:
        return []
    policies = dict.fromkeys(cell.row.spec.policy.name for cell, _ in tuned)
    each = ", ".join(
        f"{name} {count} of {sum(cell.row.spec.policy.name == name for cell, _ in tuned)}"
        for name in policies
        if (count := sum(cell.row.spec.policy.name == name for cell in high))
    )
    return [
        f"learning rates at the edge of what was tried: in {len(high)} of {len(tuned)} tuned runs "
        f"validation chose the highest rate{f' ({each})' if each else ''}, in {low} the lowest; "
        "such a policy may do better with a rate that was not tried."
    ]


def _grid(run: StoredRun) -> list[float]:
    """Rates that were tried, where there was a choice."""
    rates = [trial.learning_rate for trial in run.result.tuning]
    return rates if len(set(rates)) > 1 and run.result.learning_rate is not None else []


SAME_EXPERIMENT = ("blueprint_sha256", "initial_state_sha256", "batches_sha256")
"""What rows that differ only in the backend must have in common."""


def reasons(rows: Sequence[Row]) -> list[str]:
    """A line for each run that is not ok, the same reason named once."""
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
    """What a reader of the table must know."""
    notes = []
    if any("stand-in" in row.dataset.label for row in rows):
        notes.append(
            "stand-in: a small embedded data set in the place of a real one; the words small, "
            "medium and large are scaled down with it."
        )
    if any("synthetic" in row.dataset.label for row in rows):
        notes.append("synthetic pages: generated images; accuracy says nothing about real pages.")
    random = sum(row.weights == "random" and row.spec.policy.name != "from_scratch" for row in rows)
    if random:
        notes.append(
            f"weights random: in {random} of {len(rows)} runs random weights stand in the place of "
            "pretrained ones; their accuracy shows nothing."
        )
    for field, what in (("train_images_per_s", "training"), ("infer_images_per_s", "inference")):
        short = sum(_is_short(row, field) for row in rows)
        if short:
            notes.append(
                f"{ABSENT} {field.split('_')[0]} images/s: {short} of {len(rows)} runs were over "
                f"too soon for a steady rate of {what}."
            )
    skipped = sum(bool(row.result.unreadable_images) for row in rows)
    if skipped:
        notes.append(
            f"unreadable images were left out in {skipped} of {len(rows)} runs "
            f"({max(row.result.unreadable_images or 0 for row in rows)} at most), as asked for "
            "with --skip-unreadable."
        )
    notes += [note] if (note := _cached(rows)) else []
    swept = [row for row in rows if row.result.sweep_runs is not None]
    if swept:
        notes.append(
            f"{ABSENT} in {len(swept)} of {len(rows)} runs: heads that were trained at once, "
            "so that no time is one's own; sweep_s of --json is that of all."
        )
    if any(row.result.model_flop_utilisation is not None for row in rows):
        notes.append(
            "model FLOP utilisation: the FLOP of the training steps at train images/s, over the "
            "rate of a large matrix product in the same framework and precision on the same GPU."
        )
    notes += [note] if (note := _phased(rows)) else []
    tuned = [row for row in rows if row.result.learning_rate is not None]
    if tuned:
        notes.append(
            f"tuned: in {len(tuned)} of {len(rows)} runs the learning rate was chosen on the "
            "validation images, from the same grid around each policy's own."
        )
    unsteady = [row for row in rows if row.unsteady]
    if unsteady:
        notes.append(
            f"unsteady: in {len(unsteady)} of {len(rows)} runs slow steps took over {UNSTEADY:g} "
            "times the median one, or inference over as many times as long as in another run of "
            "the same network; the machine was probably busy with other work, so compare no speeds "
            f"of {', '.join(row.result.run_id for row in unsteady[:3])}"
            f"{' …' if unsteady[3:] else ''}."
        )
    if any(row.spec.recipe.precision in ("bf16", "fp16") for row in rows):
        notes.append(
            "bf16, fp16: matched in all but precision; each framework chooses which operations it "
            "computes in it."
        )
    notes += [note] if (note := unproved(rows)) else []
    if any(row.spec.mode == "native" for row in rows):
        notes.append(
            "native: each framework's own weights, preprocessing, optimizer and initialisation; a "
            "difference between such rows is not the framework's alone."
        )
    notes += [f"NOT THE SAME EXPERIMENT: {pair}" for pair in mismatches(rows)]
    places = {(row.spec.backend, row.spec.device, row.result.environment_id) for row in rows}
    if len(places) > len({place[:2] for place in places}):
        notes.append("rows come from several environments (machine, versions, device).")
    return notes


def _phased(rows: Sequence[Row]) -> str | None:
    phased = [row for row in rows if row["phases"]]
    if not phased:
        return None
    policies = ", ".join(dict.fromkeys(row.spec.policy.name for row in phased))
    return (
        f"phases: {policies} thaw the network as they go ({len(phased)} of {len(rows)} runs); "
        "effective images/s: images of all epochs over the time of all training, compilation "
        "left out, and of values computed once; trainable parameters: of the last phase; fit s: "
        "with the set-up of every phase but the first. Each phase by itself is in result.json."
    )


def _cached(rows: Sequence[Row]) -> str | None:
    cached = [row for row in rows if row.result.prefix_values and not row["phases"]]
    if not cached:
        return None
    reused = sum(row.result.prefix_values == "reused" for row in cached)
    others = f" ({reused} took them, and the time they cost, from another run)" if reused else ""
    return (
        f"effective images/s: in {len(cached)} of {len(rows)} runs the values of the frozen part "
        f"were computed once and not in every epoch{others}; images of all epochs over the time of "
        f"that and of training. They have no train images/s ({ABSENT}), since no whole step was "
        "made; --prefix-cache off measures whole steps."
    )


def _is_short(row: Row, field: str) -> bool:
    """Whether a run is without a rate that it should have."""
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
        f"parity not shown for {number_of(len(open_rows), 'row')}: that the backends compute "
        f"the same has not been proved on this machine; to prove it: {command}"
    )


def _backbone_argument(backbone: str) -> str:
    """Return a backbone as the command line takes it; rows do not know a user's folder."""
    own = backbone.removeprefix("module:")
    return backbone if own == backbone else f"module:FOLDER/{own}"


def mismatches(rows: Sequence[Row]) -> list[str]:
    """Rows that differ only in the backend, yet did not start or train on the same numbers.

    Versions of one backend may start on others, after an upgrade: a row is told where another
    backend has no row, in whatever environment, that began as it did. Native rows are no pairs:
    they never were the same experiment.
    """
    return [
        f"{field} differs between {', '.join(sorted(_names(told, group)))}"
        for group in twins(row for row in rows if row.spec.mode != "native")
        for field in SAME_EXPERIMENT
        if (told := _apart(group, field))
    ]


def _apart(group: Sequence[Row], field: str) -> list[Row]:
    """Rows whose value another backend has nowhere, and the rows of that one."""
    values: dict[str, set[str | None]] = {}
    for row in group:
        values.setdefault(row.spec.backend, set()).add(row[field])
    lacking = [(r, {b for b, v in values.items() if r[field] not in v}) for r in group]
    backends = {backend for _, others in lacking for backend in others}
    return [row for row, others in lacking if others or row.spec.backend in backends]


def _names(told: Sequence[Row], group: Sequence[Row]) -> list[str]:
    """Ids of runs, with the environment where there are several of one id."""
    count = Counter(row.result.run_id for row in group)
    return [
        row.result.run_id
        + (f" (environment {row.result.environment_id})" if count[row.result.run_id] > 1 else "")
        for row in told
    ]
