"""Heads: new layers on a backbone for a new set of classes (docs/design.md, Names).

Their initial numbers come from one seeded NumPy generator, the same for every backend: weights
uniform in ±1/sqrt(inputs), the bound of ``torch.nn.Linear``, biases zero.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from bench.errors import UserError
from bench.network.blueprint import (
    HEAD,
    KERNELS,
    Array,
    Blueprint,
    Network,
    Operation,
    OperationKind,
    channels_last,
    with_features,
)
from bench.network.random_streams import Stream, generator

HEAD_FORMS = "original, linear, dense:512,256 or flatten+dense:290"


MOST_UNITS = 65_536


def hidden_units(head: str) -> list[int]:
    """Return the units of a head's hidden dense layers: ``dense:512,256`` → [512, 256]. Raise
    UserError if ``head`` has none of the known forms."""
    if head in ("original", "linear"):
        return []
    match = re.fullmatch(r"(?:flatten\+)?dense:([1-9]\d{0,5}(?:,[1-9]\d{0,5})*)", head)
    if match is None:
        raise UserError(f"Unknown head '{head}'.", f"A head is {HEAD_FORMS}.")
    found = [int(units) for units in match.group(1).split(",")]
    if max(found) > MOST_UNITS:
        raise UserError(f"Head '{head}': a layer has at most {MOST_UNITS:,} units.")
    return found


def attach_head(network: Network, head: str, classes: int, seed: int) -> Network:
    """Put a new head for ``classes`` classes on a network; ``seed`` decides its numbers.

    Args:
        network: As exported, with its original classifier as stage 'head'.
        head: One of ``HEAD_FORMS``. 'original' keeps the network's own classifier and replaces its
            last layer.

    Raises:
        UserError: ``head`` has none of the known forms, or the network cannot take it.
    """
    units = hidden_units(head)
    random = generator(seed, Stream.HEAD)
    if head == "original":
        return _resize_last(network, classes, random)
    return _replace(network, [*units, classes], head.startswith("flatten+"), random)


def trunk_output(blueprint: Blueprint) -> Operation:
    """Return the operation whose value the head reads; raise UserError if it is not exactly one."""
    trunk = {o.name: o for o in blueprint.trunk()}
    read = {name for o in blueprint.operations if o.stage == HEAD for name in o.inputs}
    outputs = [trunk[name] for name in trunk if name in read]
    if not read:
        return blueprint.operations[-1]  # a network without a classifier
    if len(outputs) != 1:
        where = ", ".join(f"'{o.module_path}'" for o in outputs)
        raise UserError(
            f"{blueprint.backbone}: its classifier reads {len(outputs)} values of the network "
            f"({where}), so that there is no one place for a new head.",
            "Name a network with one trunk, or join its branches before one last layer.",
        )
    return outputs[0]


def _fresh(shape: tuple[int, ...], random: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Draw weights uniform in ±1/sqrt(fan-in); ``shape`` is (out, in, …)."""
    bound = 1.0 / math.sqrt(math.prod(shape[1:]))
    return random.uniform(-bound, bound, shape).astype(dtype)


def _resize_last(network: Network, classes: int, random: np.random.Generator) -> Network:
    """Replace the last kernel of the original classifier by one with ``classes`` outputs; DeiT's
    distilled form combines several last kernels, and all are replaced."""
    operations = list(network.blueprint.operations)
    last, after = _last_kernels(network.blueprint)
    if not last:
        raise _no_classifier(network.blueprint)
    tensors = dict(network.tensors)
    for i, operation in enumerate(operations):
        if operation.name in last:
            weight = tensors[operation.tensors["weight"]]
            shape = (classes, *weight.shape[1:])
            tensors[operation.tensors["weight"]] = _fresh(shape, random, weight.dtype)
            if "bias" in operation.tensors:
                tensors[operation.tensors["bias"]] = np.zeros(classes, weight.dtype)
        if operation.name in last | after:
            shape = with_features(operation.shape, classes)
            operations[i] = operation.model_copy(update={"shape": shape})
    return Network.of(network.blueprint, operations, tensors)


def _last_kernels(blueprint: Blueprint) -> tuple[set[str], set[str]]:
    """Return the names of the head's last kernels, and of the operations after them; raise
    UserError if the output depends on the backbone without such a kernel."""
    needed = {blueprint.output}
    last, after = set[str](), set[str]()
    for operation in reversed(blueprint.operations):
        if operation.name not in needed:
            continue
        if operation.stage != HEAD:
            raise _no_classifier(blueprint)
        if operation.kind in KERNELS:
            last.add(operation.name)
        else:
            after.add(operation.name)
            needed.update(operation.inputs)
    return last, after


def _no_classifier(blueprint: Blueprint) -> UserError:
    return UserError(
        f"{blueprint.backbone} has no classifier of its own that ends in a layer to replace, so "
        "that there is no head 'original'.",
        "Use --head linear, or dense:512,256.",
    )


def _replace(
    network: Network, widths: list[int], flatten: bool, random: np.random.Generator
) -> Network:
    """Replace the original classifier by dense layers over the trunk's pooled or flattened map.
    Tokens are averaged where a map would be pooled; a vector is used as it is."""
    source = trunk_output(network.blueprint)
    trunk = network.blueprint.trunk()
    tensors = {t: network.tensors[t] for o in trunk for t in o.tensors.values()}
    dtype = next(iter(tensors.values())).dtype
    operations: list[Operation] = []

    def add(name: str, kind: OperationKind, shape: tuple[int, ...], **more: Any) -> None:
        inputs = (operations[-1].name if operations else source.name,)
        path = {"module_path": f"head.{name}", "stage": HEAD}
        operations.append(
            Operation(name=f"head_{name}", kind=kind, inputs=inputs, shape=shape, **path, **more)
        )

    features = math.prod(source.shape) if flatten else channels_last(source.shape)[-1]
    if len(source.shape) == 3 and not flatten:
        add("pool", "adaptive_avg_pool2d", (features, 1, 1), attributes={"output_size": [1, 1]})
    if len(source.shape) == 2 and not flatten:
        add("pool", "mean_tokens", (features,))
    elif len(source.shape) > 1:
        add("flatten", "flatten", (features,))
    for number, width in enumerate(widths, start=1):
        is_last = number == len(widths)
        name = "logits" if is_last else f"dense{number}"
        roles = {role: f"head.{name}.{role}" for role in ("weight", "bias")}
        tensors[roles["weight"]] = _fresh((width, features), random, dtype)
        tensors[roles["bias"]] = np.zeros(width, dtype)
        add(name, "linear", (width,), tensors=roles)
        if not is_last:
            add(f"relu{number}", "relu", (width,))
        features = width
    return Network.of(network.blueprint, [*trunk, *operations], tensors)
