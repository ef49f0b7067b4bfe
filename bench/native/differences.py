"""Tables of native differences: the settings that each framework chooses itself in native mode.

Workers read the values from the networks and optimizers that they build (``native/knobs.py`` of
the adapters); this module compares them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.catalog.policies import POLICIES
from bench.errors import Unavailable, UserError
from bench.native.applications import application_of, why_not_native
from bench.native.weights import native_network
from bench.network.backbones import backbone as entry_of
from bench.network.backbones import check_px
from bench.network.weights import random_weights
from bench.spec.plain import plain_recipe
from bench.spec.run import OptimizerName
from bench.workers.process import Interpreters, ask
from bench.workers.tasks import NativeKnobsTask, NativeRequest

DifferenceTable = dict[str, Any]
"""Differences of a backbone; see ``native_differences``."""
CLASSES = 10
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
"""Setting → its meaning, in the order of the table; every native trainer reports all of them."""


def difference_rows(knobs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare the settings of backends, given as backend → setting → value; those outside ``KNOBS``
    (versions, threads) are ignored. Return ``{"knob", "meaning", "values": {backend: value or
    None}, "differs"}`` for each setting that some backend has."""
    rows = []
    for knob, meaning in KNOBS.items():
        if not any(knob in settings for settings in knobs.values()):
            continue
        values = {backend: settings.get(knob) for backend, settings in knobs.items()}
        different = any(value != next(iter(values.values())) for value in values.values())
        rows.append({"knob": knob, "meaning": meaning, "values": values, "differs": different})
    return rows


def native_differences(
    backbones: Sequence[str], backends: Sequence[str], interpreters: Interpreters, cache: Path,
    *, px: int | None = None, optimizer: OptimizerName = "sgd", policy: str = "fine_tune_all",
    head: str = "linear",
) -> list[DifferenceTable]:  # fmt: skip
    """Compare the native settings of backends for each backbone, with random weights; ``px`` is the
    height and width of the input, in pixels, by default the backbone's own.

    Returns:
        For each backbone ``{"backbone", "px", "optimizer", "policy", "weights", "unavailable":
        {backend: reason}, "rows": from difference_rows}``.

    Raises:
        UserError: ``keras.applications`` has the network, but not with this head or at this size;
            or a worker found a mistake of the user.
    """
    tables = []
    for backbone in backbones:
        entry = entry_of(backbone, interpreters, cache)
        size = px or entry.native_px
        check_px(backbone, entry, size)
        reasons = {b: why_not_native(b, backbone, head, size) for b in backends}
        refused = next(filter(None, reasons.values()), None)
        if refused and application_of(backbone) is not None:
            raise UserError(f"{backbone}: {refused}.")
        base = {"momentum": 0.9, "weight_decay": 1e-4, "optimizer": optimizer}
        recipe = plain_recipe(head, size).model_copy(update=base)
        native = native_network(random_weights(entry), entry)
        request = NativeRequest(backbone=backbone, network=native, policy=POLICIES[policy],
                                recipe=recipe, classes=CLASSES, device="cpu", seed=0)  # fmt: skip
        knobs: dict[str, dict[str, Any]] = {}
        unavailable: dict[str, str] = {}
        for backend, reason in reasons.items():
            try:
                if reason is not None:
                    raise Unavailable(reason)
                built = ask(
                    backend, NativeKnobsTask(request=request), interpreters,
                    f"building native {backbone}", cache,
                )  # fmt: skip
                knobs[backend] = built.knobs
            except Unavailable as error:
                unavailable[backend] = str(error)
        rows = difference_rows(knobs)
        tables.append({"backbone": backbone, "px": size, "optimizer": optimizer, "policy": policy,
                       "weights": "random", "unavailable": unavailable, "rows": rows})  # fmt: skip
    return tables


def print_differences(tables: Sequence[DifferenceTable]) -> None:
    """Print the settings that differ."""
    for table in tables:
        print(
            f"{table['backbone']}, native, {table['px']} px, {table['optimizer']}, "
            f"{table['policy']}, weights {table['weights']}"
        )
        for backend, reason in table["unavailable"].items():
            print(f"  {backend}: unavailable: {reason}")
        backends = list(table["rows"][0]["values"]) if table["rows"] else []
        if len(backends) < 2:
            print("nothing to compare\n")
            continue
        rows = [row for row in table["rows"] if row["differs"]]
        lines = [[_text(row["meaning"]), *map(_text, row["values"].values())] for row in rows]
        print(tabulate(lines, headers=["setting", *backends], disable_numparse=True))
        total = len(table["rows"])
        print(f"{total - len(rows)} of {total} settings are the same\n")


def differences_json(tables: Sequence[DifferenceTable]) -> dict[str, Any]:
    """Return the document of ``parity --mode native --json``; nothing is proved."""
    return {"mode": "native", "passed": None, "pairs": [], "ledgers": list(tables)}


def _text(value: Any) -> str:
    """Return a value in lines of 40 characters, short enough for two backends side by side."""
    if value is None:
        return "–"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return "\n".join(textwrap.wrap(text, 40)) or text
