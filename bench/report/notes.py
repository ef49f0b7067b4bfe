"""Notes on a report's numbers: their limits, how to read them, and why runs failed."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from bench.analysis.groups import SeedGroup
from bench.analysis.rows import UNSTEADY, Row, grouped, twins
from bench.analysis.same_experiment import CHOSEN_RATE
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.data.registry import GENERATED, STAND_IN, has_path, qualifier_of
from bench.errors import in_a_list, number_of
from bench.report.format import ABSENT, applicable, some_of
from bench.report.labels import values_of
from bench.system import OTHERS_DISTURB

PAIRING = {
    "proved": "parity proved: a separate proof found that both backends compute the same steps for "
    "this network, policy and optimizer; and the numbers of these runs agree, too.",
    "paired": "parity paired: both runs started from the same tensors, saw the same batches, and "
    "their first two losses and the logits in between agree. A proof was not made.",
    "not_shown": "parity not shown: the first steps of both runs were not recorded, and no proof "
    "was made.",
    "other_rate": "parity other rate: validation chose other learning rates in the two backends, "
    "so that their accuracies are not compared.",
    "differs": "parity differs: the two runs are not the same experiment and are not compared.",
}
"""Mark of a row's parity → its meaning."""
EDGE_MARK = "*"
"""Mark printed after an accuracy whose learning rate was the highest or lowest one tried."""
MOST_LINES = 20
"""Most reasons, or differences, that are listed one by one."""
RUNS_NAMED = 6
"""Runs that a note names."""
CLASSES_NAMED = 12
"""Classes of a data set that a note names."""


def chosen_at_edge(groups: Sequence[SeedGroup]) -> dict[str, tuple[int, int]]:
    """Return policy → runs in which the highest or lowest learning rate tried was the best, and all
    its tuned runs: a better rate may lie beyond. Policies without such a run are left out."""
    tuned = [row for group in groups for row in group.rows if row.tried_rates]
    total, edge = Counter[str](), Counter[str]()
    for row in tuned:
        name = row.spec.policy.name
        total[name] += 1
        edge[name] += row.is_at_edge
    return {name: (edge[name], total[name]) for name in total if edge[name]}


def most_frequent_failure(rows: Sequence[Row]) -> str | None:
    """Return the most frequent reason why runs are not ok; None if all are."""
    found = Counter(
        (row.result.status, (row.failure or {}).get("message", "")) for row in rows if not row.is_ok
    ).most_common(1)
    if not found:
        return None
    (status, message), _ = found[0]
    return f"{status}: {message}" if message else str(status)


def reasons(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason why runs are not ok; of very many, the most frequent ones."""
    failed = (row for row in rows if not row.is_ok)
    found = grouped(failed, lambda row: (row.result.status, (row.failure or {}).get("message", "")))
    lines = [
        f"{status}: {why} [{number_of(len(same), 'run')}: {same[0].result.run_id}"
        f"{' …' if same[1:] else ''}]"
        for (status, why), same in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    return [*lines[:MOST_LINES], *_rest(lines, "reason", "the table of runs that are not ok")]


def _rest(lines: Sequence[str], what: str, where: str) -> list[str]:
    """Return a line that counts the lines above ``MOST_LINES``; none if there are no more."""
    more = len(lines) - MOST_LINES
    return [f"… and {number_of(more, f'more {what}')}, see {where}"] if more > 0 else []


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Return all notes for the table of runs: what is wrong, then how to read it."""
    marks = [words for mark, words in PAIRING.items() if any(r["pairing"] == mark for r in rows)]
    return [*warnings(rows), *explanations(rows), *marks]


def warnings(rows: Sequence[Row]) -> list[str]:
    """Return notes on what is wrong with runs that are ok, or would mislead a reader."""
    return [*faults(rows), *limits(rows)]


def limits(rows: Sequence[Row]) -> list[str]:
    """Return notes on what limits the numbers of runs; on the page, cautions say the same."""
    unsteady = [row.result.run_id for row in rows if row.unsteady]
    edge, of_runs = sum(row.is_at_edge for row in rows), f"of {number_of(len(rows), 'run')}"
    return applicable({
        "synthetic pages: generated images. Accuracy says nothing about real pages.":
            any(qualifier_of(row.dataset.name) == GENERATED for row in rows),
        f"unsteady: in {len(unsteady)} {of_runs} slow steps, or inference, took over "
        f"{UNSTEADY:g} times as long as usual, or other processes took over "
        f"{OTHERS_DISTURB:.0%} of the cores. "
        "Their speeds are marked ?. Compare no speeds of "
        f"{', '.join(unsteady[:3])}{' …' if unsteady[3:] else ''}.": unsteady,
        f"learning rate: in {edge} {of_runs} the highest or lowest rate tried was the best, so "
        f"that a better one may lie beyond. Their accuracies are marked {EDGE_MARK}.": edge,
    })  # fmt: skip


def faults(rows: Sequence[Row]) -> list[str]:
    """Return notes on runs that did not do the same as their twins, had random weights, or lack
    images."""
    random = sum(row.weights == "random" and row.spec.policy.name != "from_scratch" for row in rows)
    unreadable = [row.result.unreadable_images for row in rows if row.result.unreadable_images]
    most = number_of(max(unreadable, default=0), "image")
    other_rate = sum(CHOSEN_RATE in row.differs for row in rows)
    places = {(row.spec.backend, row.spec.device, row.result.environment_id) for row in rows}
    of_runs = f"of {number_of(len(rows), 'run')}"
    return applicable({
        **{f"NOT THE SAME EXPERIMENT: {pair}": True for pair in mismatches(rows)},
        f"weights random: {random} {of_runs} used random weights instead of pretrained ones. "
        "Their accuracy is meaningless.": random,
        f"unreadable images were left out in {len(unreadable)} {of_runs} (at most {most} in a "
        "run), because of --skip-unreadable.": unreadable,
        f"other learning rates: validation chose other ones in two backends, in {other_rate} "
        f"{of_runs}. Their accuracies are not compared with each other.": other_rate,
        **{f"{row.dataset.name}: {r}": True for row in rows for r in row.result.data_remarks},
        "rows come from several environments (machine, versions or device).":
            len(places) > len({place[:2] for place in places}),
    })  # fmt: skip


def explanations(rows: Sequence[Row]) -> list[str]:
    """Return notes on how to read the table of runs."""
    qualifiers = {qualifier_of(row.dataset.name) for row in rows}
    timed = [row.result for row in rows if row.is_ok and row.result.sweep_runs is None]
    no_training = sum(not (r.train_images_per_s or r.effective_images_per_s) for r in timed)
    no_inference = sum(not r.infer_images_per_s for r in timed)
    cached = [row.result.prefix_values for row in rows
              if row.result.prefix_values and not row.result.phases]  # fmt: skip
    reused = cached.count("reused")
    reuse = (
        f" In {reused} of them the values were reused; the time of computing them is included."
        if reused
        else ""
    )
    swept = sum(row.result.sweep_runs is not None for row in rows)
    phased = [row.spec.policy.name for row in rows if row.result.phases]
    tuned = sum(row.result.learning_rate is not None for row in rows)
    of_runs, command = f"of {number_of(len(rows), 'run')}", unproved(rows)
    return applicable({
        "stand-in: a small embedded data set instead of a real one. Small, medium and large are "
        "scaled down accordingly.": STAND_IN in qualifiers,
        f"{ABSENT} train images/s: no steady rate of training in {no_training} {of_runs}, which "
        "trained too briefly.": no_training,
        f"{ABSENT} infer images/s: no steady rate of inference in {no_inference} {of_runs}, whose "
        "test was too short.": no_inference,
        f"effective images/s: in {len(cached)} {of_runs} the values of the frozen part were "
        f"computed once, not in every epoch.{reuse} The rate is images of all epochs over the "
        f"time of both. These runs have no train images/s ({ABSENT}); --prefix-cache off measures "
        "whole steps.": cached,
        f"{ABSENT} in {swept} {of_runs}: their heads were trained together, so they have no times "
        "of their own. sweep_s of --json is the time of all.": swept,
        "model FLOP utilisation: FLOP/s of the training steps at train images/s, divided by the "
        "rate of a large matrix product with the same framework, precision and GPU.":
            any(row.result.model_flop_utilisation is not None for row in rows),
        f"phases: the network is unfrozen step by step by {', '.join(dict.fromkeys(phased))} "
        f"({len(phased)} {of_runs}). effective images/s covers all epochs, with values computed "
        "once but without compilation. trainable parameters are those of the last phase. fit s "
        "includes the set-up of every phase but the first. See result.json for each phase.": phased,
        f"tuned: in {tuned} {of_runs} the learning rate was chosen on the validation images, from "
        "the same grid around each policy's default.": tuned,
        "bf16, fp16: matched in all but precision. Each framework chooses which operations it "
        "computes in low precision.":
            any(row.spec.recipe.precision in ("bf16", "fp16") for row in rows),
        "tf32: matched in all but the rounding of products, whose factors have 11 significant "
        "bits.": any(row.spec.recipe.precision == "tf32" for row in rows),
        _compiled_alone(rows): _compiled_alone(rows),
        command or "": command,
        "native: each framework's own weights, preprocessing, optimizer, compilation and "
        "initialisation. Differences between such rows are not due to the framework alone.":
            any(row.spec.mode == "native" for row in rows),
        **dict.fromkeys(_classes(rows), True),
    })  # fmt: skip


def _compiled_alone(rows: Sequence[Row]) -> str:
    """Return a note on backends that always compile beside others that did not; empty if there are
    none."""
    alone = list(dict.fromkeys(
        row.spec.backend for row in rows
        if row.spec.backend in BACKENDS and BACKENDS[row.spec.backend].always_compiled
    ))  # fmt: skip
    rungs = {row.spec.recipe.compile for row in rows if row.spec.backend not in alone}
    if not alone or rungs != {"plain"}:
        return ""
    return (
        f"compile: {' and '.join(alone)} always compiles its steps, and the other rows did not, so "
        "that they are not compared with it. --compile compiled makes rows that are."
    )


def _classes(rows: Sequence[Row]) -> list[str]:
    """Return a line for each data set of a user, with its classes in the order of their labels."""
    own = {row.dataset.content_hash: row.dataset for row in rows if has_path(row.dataset.name)}
    lines = [
        f"{data.name}: {len(data.classes):,} classes, label 0 to "
        f"{len(data.classes) - 1}: {some_of([*map(in_a_list, data.classes)], CLASSES_NAMED)}."
        for data in own.values()
    ]
    return list(dict.fromkeys(lines))


def unproved(rows: Sequence[Row]) -> str | None:
    """Return the command that proves the rows marked as not shown; None if there are none."""
    open_rows = [
        row
        for row in rows
        if row.parity == "not_shown"
        and row["pairing"] in ("paired", "not_shown")
        and not row.spec.recipe.sweep
    ]
    if not open_rows:
        return None

    # Rows do not know the folder of a user's own network.
    backbones = [name.replace("module:", "module:FOLDER/", 1) if name.startswith("module:")
                 else name for name in values_of(open_rows, "backbone")]  # fmt: skip
    own_code = any(name.startswith("module:") for name in backbones)
    where = " (FOLDER is the folder of the network's file)" if own_code else ""
    usual = {policy.boundary for policy in POLICIES.values()}
    own = [b for b in values_of(open_rows, "boundary") if b not in usual]
    boundary = f" --boundary {shlex.quote(own[0])}" if own else ""
    policies, optimizers, backends = (
        shlex.quote(",".join(values_of(open_rows, field)))
        for field in ("policy", "optimizer", "backend")
    )
    return (
        f"not proved for {number_of(len(open_rows), 'row')}: no proof on this machine that the "
        f"backends compute the same. To prove it{where}: python run_bench.py parity "
        f"{' '.join(map(shlex.quote, backbones))} --policy {policies} --optimizer {optimizers} "
        f"--backends {backends}{boundary}"
    )


def mismatches(rows: Sequence[Row]) -> list[str]:
    """Return a line for each respect in which rows that differ only in the backend are not the same
    experiment; of very many, the first ones."""
    ids = Counter(row.result.run_id for row in rows)
    lines = []
    # Validation may choose other learning rates in two backends, which is no fault.
    respects = dict.fromkeys(name for row in rows for name in row.differs if name != CHOSEN_RATE)
    for name in respects:
        for group in [*twins(row for row in rows if name in row.differs)]:
            names = [
                row.result.run_id if ids[row.result.run_id] == 1
                else f"{row.result.run_id} (environment {row.result.environment_id})"
                for row in group
            ]  # fmt: skip
            between = "differs between" if len(names) > 1 else "differs within"
            lines.append(f"{name} {between} {some_of(sorted(names), RUNS_NAMED)}")
    return [*lines[:MOST_LINES], *_rest(lines, "difference", "the column 'differs' of the rows")]
