"""Heads: what stands on a backbone for a new set of classes (DESIGN section 7).

Their first numbers come from one seeded NumPy generator, the same for both frameworks: weights
uniform in ±1/sqrt(inputs), the bound of ``torch.nn.Linear``, biases zero.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from bench.blueprint import HEAD, KERNELS, Array, Blueprint, Network, Operation
from bench.errors import UserError
from bench.streams import Stream, generator

HEAD_FORMS = "original, linear, dense:512,256 or flatten+dense:290"


def hidden_units(head: str) -> list[int]:
    """Units of the hidden dense layers of a head: ``dense:512,256`` → [512, 256].

    Raises:
        UserError: Not one of the forms of DESIGN section 7.
    """
    if head in ("original", "linear"):
        return []
    match = re.fullmatch(r"(?:flatten\+)?dense:([1-9]\d{0,5}(?:,[1-9]\d{0,5})*)", head)
    if match is None:
        raise UserError(f"Unknown head '{head}'.", f"A head is {HEAD_FORMS}.")
    return [int(units) for units in match.group(1).split(",")]


def attach_head(network: Network, head: str, classes: int, seed: int) -> Network:
    """Put a new head for ``classes`` classes on a network.

    Args:
        network: As exported, with its original classifier as stage 'head'.
        head: One of the forms of DESIGN section 7. 'original' keeps the network's own classifier
            and replaces its last layer.
        seed: Of the new layers' numbers.

    Raises:
        UserError: ``head`` is of no known form.
    """
    units = hidden_units(head)
    random = generator(seed, Stream.HEAD)
    if head == "original":
        return _resize_last(network, classes, random)
    return _replace(network, units, classes, flatten=head.startswith("flatten+"), random=random)


def trunk_output(blueprint: Blueprint) -> Operation:
    """The operation whose value the head reads.

    Raises:
        UserError: The head reads more than one value of the backbone, or none.
    """
    trunk = {o.name: o for o in blueprint.trunk()}
    read = {name for o in blueprint.operations if o.stage == HEAD for name in o.inputs}
    outputs = [trunk[name] for name in trunk if name in read]
    if len(outputs) != 1:
        raise UserError(f"{blueprint.backbone}: the head reads {len(outputs)} values, not one.")
    return outputs[0]


def _fresh(shape: tuple[int, ...], random: np.random.Generator, dtype: np.dtype[Any]) -> Array:
    """Weights uniform in ±1/sqrt(fan-in); ``shape`` is (out, in, …)."""
    bound = 1.0 / math.sqrt(math.prod(shape[1:]))
    return random.uniform(-bound, bound, shape).astype(dtype)


def _resize_last(network: Network, classes: int, random: np.random.Generator) -> Network:
    """Replace the last kernel of the original classifier by one with ``classes`` outputs."""
    operations = list(network.blueprint.operations)
    index = max(i for i, o in enumerate(operations) if o.stage == HEAD and o.kind in KERNELS)
    tensors = dict(network.tensors)
    last = operations[index]
    weight = tensors[last.tensors["weight"]]
    tensors[last.tensors["weight"]] = _fresh((classes, *weight.shape[1:]), random, weight.dtype)
    if "bias" in last.tensors:
        tensors[last.tensors["bias"]] = np.zeros(classes, weight.dtype)
    for i in range(index, len(operations)):
        shape = (classes, *operations[i].shape[1:])
        operations[i] = operations[i].model_copy(update={"shape": shape})
    return _network(network.blueprint, tuple(operations), tensors)


def _replace(
    network: Network, units: list[int], classes: int, flatten: bool, random: np.random.Generator
) -> Network:
    """Dense layers over the trunk's pooled or flattened map instead of the original classifier."""
    source = trunk_output(network.blueprint)
    trunk = network.blueprint.trunk()
    tensors = {t: network.tensors[t] for o in trunk for t in o.tensors.values()}
    dtype = next(iter(tensors.values())).dtype
    operations: list[Operation] = []

    def add(name: str, kind: str, shape: tuple[int, ...], **more: Any) -> None:
        operations.append(
            Operation.model_validate(
                {
                    "name": f"head_{name}",
                    "kind": kind,
                    "inputs": (operations[-1].name if operations else source.name,),
                    "shape": shape,
                    "module_path": f"head.{name}",
                    "stage": HEAD,
                    **more,
                }
            )
        )

    features = source.shape[0]
    if flatten:
        features = math.prod(source.shape)
    else:
        add("pool", "adaptive_avg_pool2d", (features, 1, 1), attributes={"output_size": [1, 1]})
    add("flatten", "flatten", (features,))
    for number, width in enumerate([*units, classes], start=1):
        last = number > len(units)
        name = "logits" if last else f"dense{number}"
        roles = {role: f"head.{name}.{role}" for role in ("weight", "bias")}
        tensors[roles["weight"]] = _fresh((width, features), random, dtype)
        tensors[roles["bias"]] = np.zeros(width, dtype)
        add(name, "linear", (width,), tensors=roles)
        if not last:
            add(f"relu{number}", "relu", (width,))
        features = width
    return _network(network.blueprint, (*trunk, *operations), tensors)


def _network(
    old: Blueprint, operations: tuple[Operation, ...], tensors: dict[str, Array]
) -> Network:
    shapes = {name: array.shape for name, array in tensors.items()}
    return Network(old.model_copy(update={"operations": operations, "shapes": shapes}), tensors)
