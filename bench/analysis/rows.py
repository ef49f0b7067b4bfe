"""Results as rows: a stored run with the marks that follow from the runs beside it.

A row's fields by name (``FIELDS``) are the columns of tables, CSV and ``--json``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from bench.analysis.same_experiment import CHOSEN_RATE, HARMLESS, THREADS, differences, own_faults
from bench.catalog.backends import BACKENDS
from bench.catalog.policies import POLICIES
from bench.parity.proofs import ProvedSubject
from bench.spec.result import REPORTED_FIELDS
from bench.spec.run import RECIPE_OPTIONS, DatasetRef
from bench.storage.results import StoredRun
from bench.system import OTHERS_DISTURB

Parity = Literal["shown", "not_shown"]
Pairing = Literal["proved", "paired", "other_rate", "not_shown", "differs"]
"""proved: a proof showed that the backends compute the same; paired: start, batches, first losses
and logits of these runs agree; other_rate: validation chose other learning rates; not_shown: no
such numbers were recorded; differs: something does not agree."""
T = TypeVar("T")
FIELDS: dict[str, str] = {
    "run_id": "result.run_id",
    "environment_id": "result.environment_id",
    "case": "spec.case.number",
    "size": "spec.case.size",
    "train_images": "spec.case.dataset.train_images",
    "val_images": "spec.case.dataset.val_images",
    "test_images": "spec.case.dataset.test_images",
    "similarity": "spec.case.similarity",
    "dataset": "spec.case.dataset.name",
    "dataset_label": "spec.case.dataset.label",
    "dataset_hash": "spec.case.dataset.content_hash",
    "fold": "fold",
    "backbone": "spec.backbone",
    "code_sha256": "spec.code_sha256",
    "network_digest": "spec.network_digest",
    "policy": "spec.policy.name",
    "boundary": "spec.policy.boundary",
    "policy_digest": "spec.policy.digest",
    "mode": "spec.mode",
    "weights": "weights",
    "weights_sha256": "spec.weights.sha256",
    "reading_digest": "spec.weights.reading_digest",
    **{name: f"spec.recipe.{name}" for name in RECIPE_OPTIONS},
    "tune": "tune",
    "learning_rate_chosen": "result.learning_rate",
    "sweep": "sweep",
    "backend": "spec.backend",
    "device": "spec.device",
    "device_model": "environment.device_model",
    "seed": "spec.seed",
    "status": "result.status",
    "failure": "failure",
    "parity": "parity",
    "pairing": "pairing",
    "differs": "differs_list",
    "unsteady": "unsteady",
    "unreadable_images": "result.unreadable_images",
    "phases": "phases",
    **{name: f"result.{name}" for name in REPORTED_FIELDS},
}
"""Field of a row → the attribute path that it repeats, in the order of the JSON."""
DIFFERING = frozenset({
    "run_id", "environment_id", "backend", "status", "failure", "parity", "pairing", "differs",
    "learning_rate_chosen", "phases", "unsteady", "unreadable_images", *REPORTED_FIELDS,
})  # fmt: skip
"""Fields in which rows of one experiment may differ; all others are its identity."""
MARKS = ("parity", "pairing", "differs", "unsteady")
"""Fields that follow from the runs beside a row."""
_marks = attrgetter(*(FIELDS[name] for name in MARKS))
_recipe_values = attrgetter(*RECIPE_OPTIONS)
_values = attrgetter(*FIELDS.values())


@dataclass(frozen=True)
class Row(StoredRun):
    """A stored run, with the marks that follow from the runs beside it."""

    parity: Parity | None = None
    """shown if its backend is proved equal to those of all twins; None without a twin."""
    differs: tuple[str, ...] = ()
    """Respects in which it is not the same experiment as its twins in other backends."""
    has_pair: bool = False
    """True if the numbers of its first steps could be compared with twins in all other backends."""
    unsteady: bool = False
    """True if the machine did other work meanwhile, so that the run's speeds are not comparable."""

    def __getitem__(self, name: str) -> Any:
        """Return a field by its name in ``FIELDS``, for columns, sorting and filters."""
        return self.fields[name]

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """All fields in the order of ``FIELDS``, read-only; values are plain JSON."""
        return MappingProxyType(dict(zip(FIELDS, _values(self), strict=True)))

    def marked(self, **marks: Any) -> Row:
        """Return the row with other marks: ``parity``, ``differs``, ``has_pair``, ``unsteady``."""
        row = Row(self.spec, self.environment, self.result, self.folder, **marks)
        # Thousands of rows need not look up the fields twice that stay as they are.
        changed = dict(zip(MARKS, _marks(row), strict=True))
        vars(row)["fields"] = MappingProxyType({**self.fields, **changed})
        return row

    @property
    def is_ok(self) -> bool:
        return self.result.status == "ok"

    @property
    def is_valid(self) -> bool:
        """True if it is ok and the same experiment as its twins, apart from ``HARMLESS``
        differences."""
        return self.is_ok and not set(self.differs) - HARMLESS

    @property
    def dataset(self) -> DatasetRef:
        return self.spec.case.dataset

    @property
    def fold(self) -> int | None:
        """Number of its part of a cross-validation, from 1."""
        return self.dataset.fold.number if self.dataset.fold else None

    @property
    def pairing(self) -> Pairing | None:
        """Evidence that it is the same experiment as its twins in other backends; None without a
        twin. See ``Pairing``."""
        if self.parity is None:
            return None
        if set(self.differs) - HARMLESS:
            return "differs"
        if CHOSEN_RATE in self.differs:
            return "other_rate"
        if self.parity == "shown":
            return "proved"
        return "paired" if self.has_pair else "not_shown"

    @property
    def steady_fit_s(self) -> float | None:
        """Time of the fit without compilation, in seconds; None if it has no time of its own."""
        whole = self.result.fit_s
        return None if not whole else max(whole - (self.result.compile_s or 0.0), 1e-6)

    @property
    def weights(self) -> str:
        """Initial weights: pretrained, random, or file with its base name and SHA-256 prefix."""
        ref = self.spec.weights
        return ref.kind if ref.kind != "file" else f"file {ref.source} {(ref.sha256 or '')[:8]}"

    @property
    def tune(self) -> str | None:
        """lr if validation chose the learning rate; else None."""
        return "lr" if self.spec.recipe.learning_rate_grid else None

    @property
    def sweep(self) -> str:
        """at once if trained together with other runs, else alone."""
        return "at once" if self.spec.recipe.sweep else "alone"

    @property
    def tried_rates(self) -> list[float]:
        """Learning rates among which validation chose; empty without a choice."""
        if not self.result.tuning or self.result.learning_rate is None:
            return []
        rates = [trial.learning_rate for trial in self.result.tuning]
        return rates if len(set(rates)) > 1 else []

    @property
    def is_at_edge(self) -> bool:
        """True if the learning rate that validation chose is the highest or lowest one tried."""
        rates = self.tried_rates
        return bool(rates) and self.result.learning_rate in (max(rates), min(rates))

    @property
    def failure(self) -> dict[str, Any] | None:
        """Failure as JSON; None if the run is ok."""
        return self.result.failure.model_dump() if self.result.failure else None

    @property
    def differs_list(self) -> list[str]:
        """``differs`` as JSON."""
        return list(self.differs)

    @property
    def phases(self) -> list[dict[str, Any]]:
        """Phases as JSON; empty if the policy has none."""
        return [phase.model_dump(mode="json") for phase in self.result.phases]


def row_of(run: StoredRun) -> Row:
    """Return a run as a row without marks."""
    return Row(run.spec, run.environment, run.result, run.folder)


def rows_of(runs: Iterable[StoredRun], shown: Collection[ProvedSubject] = ()) -> list[Row]:
    """Return rows, with marks, in reading order: case, data, backbone, policy, recipe, seed,
    backend. ``shown`` holds what has been proved, for 'parity'."""
    rows = sorted(map(row_of, runs), key=_reading_order)
    matched = twins(row for row in rows if row.spec.mode == "matched")
    odd = _differences(matched)
    parity = _parity_marks(matched, shown, odd)
    pairs = {row.key for same in matched for row in _with_pair(same)}
    return [
        row.marked(parity=parity.get(row.key), differs=odd.get(row.key, ()),
                   has_pair=row.key in pairs, unsteady=unsteady)
        for row, unsteady in zip(rows, _unsteady_marks(rows), strict=True)
    ]  # fmt: skip


POLICY_PLACES, BACKEND_PLACES = (
    {name: place for place, name in enumerate(names)} for names in (POLICIES, BACKENDS)
)


def backend_place(backend: str) -> int:
    """Return a backend's place in the catalogue; an unknown one comes last."""
    return BACKEND_PLACES.get(backend, len(BACKEND_PLACES))


def _reading_order(row: Row) -> tuple[Any, ...]:
    spec, case, data = row.spec, row.spec.case, row.spec.case.dataset
    recipe = _recipe_values(spec.recipe)
    return (
        case.number or 9, data.name, 0 if data.fold else data.train_images, spec.backbone,
        POLICY_PLACES.get(spec.policy.name, len(POLICIES)), row.weights, spec.mode,
        *(0 if value is None else value for value in recipe), row.tune or "", row.sweep,
        spec.seed, row.fold or 0, spec.device, backend_place(spec.backend), *reversed(row.key),
    )  # fmt: skip


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    """Return key → the items that have it; keys and items keep their order."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def identity(row: Row, without: frozenset[str]) -> tuple[Hashable, ...]:
    """Return the values of all fields but ``without``, in the order of ``FIELDS``."""
    found: tuple[Hashable, ...] = _values_without(without)(row.fields)
    return found


@lru_cache
def _values_without(fields: frozenset[str]) -> itemgetter[Any]:
    return itemgetter(*(name for name in FIELDS if name not in fields))


def twins(rows: Iterable[Row]) -> list[list[Row]]:
    """Group the rows that are ok by experiment (all fields but ``DIFFERING``), in their order."""
    ok = (row for row in rows if row.is_ok)
    return list(grouped(ok, lambda row: identity(row, DIFFERING)).values())


UNSTEADY = 3.0
"""Ratio of slow to usual step time above which a machine counts as busy. The training steps of
quiet machines had p95 / p50 of 1.1 to 1.7, those of a shared one 15."""
_inference_network = itemgetter(
    "backbone", "code_sha256", "network_digest", "mode", "head", "precision", "compile", "px",
    "batch_size", "dataset_hash", "backend", "device", "environment_id",
)  # fmt: skip
"""Fields of runs that execute the same inference graph, whatever was trained."""


def _unsteady_marks(rows: Sequence[Row]) -> list[bool]:
    """Return for each row True if other processes took more than ``OTHERS_DISTURB`` of the cores,
    if slow steps took over ``UNSTEADY`` times the median one, or inference so many times as long
    as in another run of the same network. Inference also covers runs that have no step times
    because a frozen part was computed once."""
    networks = [_inference_network(row.fields) for row in rows]
    rates = [row.result.infer_images_per_s or 0.0 for row in rows]
    fastest: dict[Hashable, float] = {}
    for network, rate in zip(networks, rates, strict=True):
        fastest[network] = max(rate, fastest.get(network, 0.0))
    steps = [(row.result.step_s_p50, row.result.step_s_p95) for row in rows]
    return [
        bool(p50 and p95 and p95 > UNSTEADY * p50)
        or 0.0 < UNSTEADY * rate < fastest[network]
        or (row.result.other_work_fraction or 0.0) > OTHERS_DISTURB
        for row, network, rate, (p50, p95) in zip(rows, networks, rates, steps, strict=True)
    ]


def _differences(matched: Sequence[Sequence[Row]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the respects in which rows are not the same experiment as their twins, by key."""
    odd = {row.key: tuple(own) for same in matched for row in same if (own := own_faults(row))}
    for same in matched:
        for key, names in differences(same).items():
            odd[key] = (*odd.get(key, ()), *names)
    return odd


def _with_pair(same: Sequence[Row]) -> list[Row]:
    """Return the twins whose first steps could be compared, because every backend recorded some."""
    known = [row for row in same if (f := row.result.fingerprint) is not None and f.step_losses]
    backends = {row.spec.backend for row in known}
    return known if backends == {row.spec.backend for row in same} else []


def _parity_marks(
    matched: Sequence[Sequence[Row]], shown: Collection[ProvedSubject],
    odd: Mapping[tuple[str, str], tuple[str, ...]],
) -> dict[tuple[str, str], Parity]:  # fmt: skip
    """Return a mark for each row with twins in other backends, by key: shown if each other backend
    has a twin, in any environment, that is proved to compute the same, and nothing in their own
    numbers says otherwise (``odd``)."""
    marks: dict[tuple[str, str], Parity] = {}
    for group in matched:
        backends = {row.spec.backend for row in group}
        for row in group if len(backends) > 1 else ():
            alike = _proved_alike(row, shown)
            proved = {twin.spec.backend for twin in group if twin.result.environment_id in alike}
            may_be = not set(odd.get(row.key, ())) - {THREADS} and all(map(_is_provable, group))
            is_shown = may_be and backends <= {*proved, row.spec.backend}
            marks[row.key] = "shown" if is_shown else "not_shown"
    return marks


def _is_provable(row: Row) -> bool:
    """Return True if proofs cover the form of a row's steps: not heads that are trained at once,
    and not steps that a compiler changed, unless the backend always compiles."""
    backend, recipe = row.spec.backend, row.spec.recipe
    always = backend in BACKENDS and BACKENDS[backend].always_compiled
    return not recipe.sweep and (recipe.compile == "plain" or always)


def is_proved(a: Row, b: Row, shown: Collection[ProvedSubject]) -> bool:
    """Return True if two rows of one experiment are proved to compute the same, each in its own
    environment."""
    is_covered = _is_provable(a) and _is_provable(b)
    return is_covered and b.result.environment_id in _proved_alike(a, shown)


def _proved_alike(row: Row, shown: Collection[ProvedSubject]) -> set[str]:
    """Return the environments proved to compute a row's experiment as its own does, directly or
    through others that both were compared with."""
    if not shown:
        return set()
    about, own = ProvedSubject.of_run(row.spec)[:-1], row.result.environment_id
    pairs = [subject.environments for subject in shown if subject[:-1] == about]
    alike = {own}
    while new := {e for pair in pairs if pair & alike for e in pair} - alike:
        alike |= new
    return alike - {own}
