"""Probes: simple classifiers on fixed features, evaluated on held-out images.

A linear probe of a pretrained network's features, beside one of the same network with random
weights and one of the pixels, measures how much pretraining helps on these images (Kornblith et al.
2019, "Do Better ImageNet Models Transfer Better?"; Alain and Bengio 2017, "Understanding
intermediate layers using linear classifier probes").
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from bench.data.model import Pixels
from bench.data.resplit import Indices
from bench.network.blueprint import Array

Kind = Literal["linear", "neighbours"]
Right = npt.NDArray[np.bool_]
"""(N,) True where a held-out image is classified correctly."""
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Values of scikit-learn's ``C``, the inverse strength of the L2 penalty. Ascending, so that each
fit begins at the one before. Features are scaled to a mean square norm of 1."""
ITERATIONS = 100
LEAST_PROBABILITY = 1e-12
NEIGHBOURS = 5
MOST_COMPONENTS = 256
"""Features are projected on so many principal components at most: a fit takes a tenth of the time,
and no accuracy was lost where it was tried."""
THREADS = 1
"""Threads of linear algebra in a fit. The matrices are so small that more threads wait for each
other most of the time: on 2 cores, fits on 340 images took ten times as long with two, and none
took less, up to 4,000 images of 400 classes."""
PIXEL_SIDE = 16
"""Side to which images are reduced as features of their own."""


@dataclass(frozen=True)
class Probe:
    """A probe's answers to the held-out images."""

    name: str
    """Words for the features: network, weights and stage; 'pixels'."""
    kind: Kind
    right: Right
    predicted: Indices
    """(N,) class that it gives each held-out image."""
    strength: float | None
    """Inverse strength of the penalty that was chosen; None for neighbours."""
    log_loss: float | None
    """Mean cross-entropy; None for neighbours."""

    @property
    def top1(self) -> float:
        """Accuracy."""
        return float(self.right.mean())


def probe(
    name: str, features: Array, labels: Indices, fold_of: Indices, kinds: Sequence[Kind],
    seconds: float = math.inf,
) -> list[Probe]:  # fmt: skip
    """Evaluate probes on the images that are held out, each by a classifier that was fitted to
    those outside its fold.

    Args:
        features: (N, C).
        labels: (N,) class numbers.
        fold_of: (N,) fold in which an image is held out; −1: never.
        kinds: Classifiers, each of which gives a probe.
        seconds: Time that each probe may take. Each fold has an equal part of what is left, and
            tries the strongest penalty, and weaker ones as long as they fit.
    """
    with threadpool_limits(THREADS):
        return [_evaluate(name, features, labels, fold_of, kind, seconds) for kind in kinds]


def _evaluate(
    name: str, features: Array, labels: Indices, fold_of: Indices, kind: Kind, seconds: float
) -> Probe:
    """Evaluate one probe, as ``probe`` says."""
    end_s = time.perf_counter() + seconds
    folds = [(fold_of != fold, fold_of == fold) for fold in range(int(fold_of.max()) + 1)]
    held_out = np.concatenate([np.flatnonzero(test) for _, test in folds])
    order = np.argsort(held_out)
    answers = []
    for number, (fit, test) in enumerate(folds):
        part_s = (end_s - time.perf_counter()) / (len(folds) - number)
        scaled = _scaled(features[fit], features[test])
        answers.append(_KINDS[kind](*scaled, labels[fit], labels[test], part_s))
    joined = {
        strength: (
            np.concatenate([a[strength][0] for a in answers])[order],
            np.concatenate([a[strength][1] for a in answers]),
        )
        for strength in answers[0]
        if all(strength in one for one in answers)
    }
    best = min(joined, key=lambda strength: float(joined[strength][1].mean()))
    predicted, losses = joined[best]
    right = predicted == labels[held_out[order]]
    if kind != "linear":
        return Probe(name, kind, right, predicted, None, None)
    return Probe(name, kind, right, predicted, best, float(losses.mean()))


def best_probe(probes: Sequence[Probe]) -> Probe:
    """Return the linear probe with the smallest loss."""
    linear = [p for p in probes if p.log_loss is not None]
    return min(linear, key=lambda p: p.log_loss or 0.0)


def pixel_features(images: Pixels) -> Array:
    """Return images (N, px, px, 3), averaged over blocks, as (N, C) features from 0 to 1."""
    count, px = images.shape[:2]
    side = min(PIXEL_SIDE, px)
    edges = np.linspace(0, px, side + 1).astype(int)
    found = np.empty((count, side, side, 3), np.float32)
    for row in range(side):
        band = images[:, edges[row] : edges[row + 1]].mean(axis=1, dtype=np.float32)
        for column in range(side):
            found[:, row, column] = band[:, edges[column] : edges[column + 1]].mean(axis=1)
    return found.reshape(count, side * side * 3) / 255.0


def _scaled(fit: Array, test: Array) -> tuple[Array, Array]:
    """Standardise features (N, C) by those of the fit, project them on their principal components,
    and scale them to a mean square norm of 1."""
    mean, deviation = fit.mean(axis=0), fit.std(axis=0)
    deviation[deviation < 1e-6 * max(float(deviation.max()), 1e-12)] = np.inf  # constant features
    fit, test = (fit - mean) / deviation, (test - mean) / deviation
    if fit.shape[1] > MOST_COMPONENTS:
        # Diagonalise the smaller of the N × N and C × C matrices.
        if len(fit) <= fit.shape[1]:
            values, vectors = np.linalg.eigh(fit @ fit.T)
            keep = values > 1e-6 * max(float(values[-1]), 1e-12)
            keep[-1], values[-1] = True, max(float(values[-1]), 1e-12)  # all images may be alike
            axes = fit.T @ (vectors[:, keep] / np.sqrt(values[keep]))
        else:
            axes = np.linalg.eigh(fit.T @ fit)[1]
        axes = axes[:, -MOST_COMPONENTS:]
        fit, test = fit @ axes, test @ axes
    norm = np.sqrt(np.square(fit).sum(axis=1).mean())
    return fit / max(norm, 1e-12), test / max(norm, 1e-12)


Answers = dict[float, tuple[Indices, Array]]
"""Strength → (predicted class, loss), each (N,), of the held-out images."""


def _linear(
    fit: Array, test: Array, fit_labels: Indices, test_labels: Indices, seconds: float
) -> Answers:
    """Fit logistic regression at each strength, and return its answers: the first one, and the
    others as long as one more, which takes as long as the last, fits into the time."""
    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    found: Answers = {}
    began_s, last_s = time.perf_counter(), 0.0
    for strength in STRENGTHS:
        spent_s = time.perf_counter() - began_s
        if found and spent_s + last_s > seconds:
            break
        model.C = strength
        with warnings.catch_warnings():  # a weak penalty need not converge to compare well
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(fit, fit_labels)
        logs = np.log(np.maximum(model.predict_proba(test), LEAST_PROBABILITY))
        column = {label: index for index, label in enumerate(model.classes_)}
        loss = np.array([
            -logs[row, column[label]] if label in column else -np.log(LEAST_PROBABILITY)
            for row, label in enumerate(test_labels)
        ])  # fmt: skip
        predicted = model.classes_[logs.argmax(axis=1)]
        found[strength] = predicted, loss
        last_s = time.perf_counter() - began_s - spent_s
    return found


def _neighbours(
    fit: Array, test: Array, fit_labels: Indices, test_labels: Indices, seconds: float
) -> Answers:
    """Return the answers of the nearest neighbours, without a loss, at a strength of 0."""
    model = KNeighborsClassifier(min(NEIGHBOURS, len(fit)), weights="distance")
    predicted = model.fit(fit, fit_labels).predict(test)
    return {0.0: (predicted, (predicted != test_labels).astype(np.float64))}


_KINDS: dict[Kind, Callable[[Array, Array, Indices, Indices, float], Answers]] = {
    "linear": _linear,
    "neighbours": _neighbours,
}
