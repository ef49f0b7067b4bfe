"""The knob ledger: what is each framework's own in native mode, side by side.

The values are read by the workers from the networks and optimizers that they build (the adapters'
``native_knobs`` modules); here they are only laid beside each other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.catalog.policies import POLICIES
from bench.catalog.recipes import plain_recipe
from bench.errors import Unavailable, UserError
from bench.native.applications import Application, application_of, is_keras, why_not_native
from bench.native.weights import native_network, native_weights
from bench.network.backbones import backbone as entry_of
from bench.network.backbones import check_px
from bench.network.weights import Weights, pretrained_weights, random_weights
from bench.spec.backbone import BackboneEntry
from bench.spec.run import OptimizerName, Recipe
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import NativeKnobsTask

Ledger = dict[str, Any]
ABSENT = "–"
WIDTH = 40
"""Of a column, in characters."""
KNOBS: dict[str, str] = {
    "network": "network",
    "weights_file": "file of the weights",
    "channels": "preprocessing: channels",
    "black_pixel": "preprocessing: a black pixel",
    "white_pixel": "preprocessing: a white pixel",
    "resize_filter": "resize filter of the packed images",
    "loader_resize": "resize of the library's own loader",
    "strided_convolutions": "strides",
    "strided_padding": "padding of strided convolutions (above+below)",
    "convolution_biases": "convolutions with a bias",
    "batch_norm_layers": "BatchNorm layers",
    "batch_norm_epsilon": "BatchNorm epsilon",
    "batch_norm_momentum": "BatchNorm momentum, as written",
    "batch_norm_new_share": "share of a new batch in the running statistics",
    "running_variance": "running variance",
    "optimizer": "optimizer",
    "optimizer_epsilon": "optimizer epsilon",
    "update_rule": "optimizer update rule",
    "weight_decay_rule": "weight decay",
    "weight_decay_tensors": "tensors that decay",
    "optimizer_defaults": "the optimizer's own defaults (the recipe's values are used)",
    "learning_rates": "learning rates",
    "head_initialiser": "initialiser of the head",
    "head_kernel": "initial kernel of the head",
    "head_bias": "initial bias of the head",
    "layout": "layout",
    "compilation": "compilation",
    "dropout": "dropout",
    "stochastic_depth": "stochastic depth",
    "auxiliary_heads": "auxiliary heads",
    "first_trained": "first part that trains",
    "frozen_part": "frozen part",
    "parameters": "parameters",
    "moving_statistics": "values of moving statistics",
}
"""Knob → what a reader is told that it is, in the order of the ledger; every native trainer has all
of them."""


def merge_knobs(knobs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a ledger.

    Args:
        knobs: Backend → knob → value; knobs that are not in ``KNOBS`` (versions, threads) are
            left out.

    Returns:
        ``{"knob", "meaning", "values": {backend: value or None}, "differs"}``, one for each knob
        that any backend has.
    """
    rows = []
    for knob, meaning in KNOBS.items():
        if not any(knob in of for of in knobs.values()):
            continue
        values = {backend: of.get(knob) for backend, of in knobs.items()}
        different = any(value != next(iter(values.values())) for value in values.values())
        rows.append({"knob": knob, "meaning": meaning, "values": values, "differs": different})
    return rows


def native_ledger(
    backbones: Sequence[str],
    backends: Sequence[str],
    interpreters: Interpreters,
    cache: Path,
    *,
    px: int | None = None,
    optimizer: OptimizerName = "sgd",
    policy: str = "fine_tune_all",
    head: str = "linear",
    classes: int = 10,
    weights: str = "random",
) -> list[Ledger]:
    """Ask each backend's worker for the knobs of each backbone in native mode.

    Args:
        backbones: Names of the catalogue.
        backends: Whose workers to ask.
        interpreters: Which Python runs which backend.
        cache: Root of the cache, for the workers' logs.
        px: Input size; None: the backbone's own.
        optimizer: Whose update rule is looked at.
        policy: Decides what is frozen.
        head: Not 'original', which native Keras has not.
        classes: Of the head.
        weights: 'random', or 'pretrained' to read what the published weights bring with them
            (``keras.applications`` keeps some of its preprocessing there).

    Returns:
        For each backbone ``{"backbone", "px", "optimizer", "policy", "weights", "unavailable":
        {backend: reason}, "rows": from merge_knobs}``.

    Raises:
        UserError: ``keras.applications`` has the network, but not with this head or at this size;
            or a worker found the question wrong.
    """
    ledgers = []
    for backbone in backbones:
        entry = entry_of(backbone, interpreters, cache)
        size = px or entry.native_px
        check_px(backbone, entry, size)
        _check_native(backbone, head, size, backends)
        base = {"momentum": 0.9, "weight_decay": 1e-4, "optimizer": optimizer}
        recipe = plain_recipe(head, size).model_copy(update=base)
        knobs: dict[str, dict[str, Any]] = {}
        unavailable: dict[str, str] = {}
        for backend in backends:
            try:
                found = _weights(backend, backbone, entry, size, weights)
                knobs[backend] = _ask(
                    backend, backbone, entry, recipe, policy, classes, found, interpreters, cache
                )
            except Unavailable as error:
                unavailable[backend] = str(error)
        ledgers.append(
            {
                "backbone": backbone,
                "px": size,
                "optimizer": optimizer,
                "policy": policy,
                "weights": weights,
                "unavailable": unavailable,
                "rows": merge_knobs(knobs),
            }
        )
    return ledgers


def _check_native(backbone: str, head: str, px: int, backends: Sequence[str]) -> None:
    """That a framework lacks a network is an answer; a head or size that it cannot take is none."""
    for backend in backends:
        reason = why_not_native(backend, backbone, head, px)
        if reason is not None and application_of(backbone) is not None:
            raise UserError(f"{backbone}: {reason}.")


def _weights(backend: str, backbone: str, entry: BackboneEntry, px: int, weights: str) -> Weights:
    if weights == "random":
        return random_weights(entry)
    application: Application | None = application_of(backbone) if is_keras(backend) else None
    if application is not None:
        return native_weights(backbone, application, entry, px)
    return pretrained_weights(backbone, entry)


def _ask(
    backend: str,
    backbone: str,
    entry: BackboneEntry,
    recipe: Recipe,
    policy: str,
    classes: int,
    weights: Weights,
    interpreters: Interpreters,
    cache: Path,
) -> dict[str, Any]:
    reason = why_not_native(backend, backbone, recipe.head, recipe.px)
    if reason is not None:
        raise Unavailable(reason)
    task = NativeKnobsTask(
        backbone=backbone,
        native=native_network(weights, entry),
        policy=POLICIES[policy],
        recipe=recipe,
        classes=classes,
        device="cpu",
    )
    return ask(backend, task, interpreters, f"building native {backbone}", cache).knobs


def print_ledger(ledgers: Sequence[Ledger], everything: bool = False) -> None:
    """The ledgers as tables on stdout: what differs, and with ``everything`` also what does not."""
    for ledger in ledgers:
        print(
            f"{ledger['backbone']}, native, {ledger['px']} px, {ledger['optimizer']}, "
            f"{ledger['policy']}, weights {ledger['weights']}"
        )
        for backend, reason in ledger["unavailable"].items():
            print(f"  {backend}: unavailable: {reason}")
        if len(ledger["rows"][0]["values"] if ledger["rows"] else {}) < 2:
            print("nothing to compare\n")
            continue
        rows = [row for row in ledger["rows"] if row["differs"] or everything]
        backends = list(ledger["rows"][0]["values"])
        table = [
            [_text(row["meaning"]), *(_text(row["values"][backend]) for backend in backends)]
            for row in rows
        ]
        print(tabulate(table, headers=["knob", *backends], disable_numparse=True))
        same = sum(not row["differs"] for row in ledger["rows"])
        print(f"{same} of {len(ledger['rows'])} knobs are the same\n")


def ledger_json(ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """The document that ``parity --mode native --json`` prints; it proves nothing."""
    return {"mode": "native", "passed": None, "pairs": [], "ledgers": list(ledgers)}


def _text(value: Any) -> str:
    """Long values are wrapped, so that two backends stand side by side on a screen."""
    if value is None:
        return ABSENT
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return "\n".join(textwrap.wrap(text, WIDTH)) or text
