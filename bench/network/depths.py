"""A network that returns the pooled output of every stage: its features at several depths."""

from __future__ import annotations

from typing import NamedTuple

from bench.network.blueprint import HEAD, Blueprint, Network, Operation, OperationKind

FEATURES = "depth_features"
"""Name of the value that joins the features of all depths."""


class Depth(NamedTuple):
    """Features of one stage, as a part of all features."""

    stage: str
    first: int
    """Index of its first feature."""
    last: int
    """Index after its last feature."""


def with_depths(network: Network) -> tuple[Network, list[Depth]]:
    """Return the trunk of a network whose output (C,) joins the output of every stage, averaged
    over positions; and the place of each stage in it, from the input on."""
    blueprint = network.blueprint
    trunk = blueprint.trunk()
    operations, pooled, depths = list(trunk), list[Operation](), list[Depth]()
    at = 0
    for stage in stages_of(blueprint):
        source = [operation for operation in trunk if operation.stage == stage][-1]
        *more, vector = _averaged(source)
        operations += [*more, vector] if vector is not source else []
        pooled.append(vector)
        depths.append(Depth(stage, at, at + vector.shape[0]))
        at += vector.shape[0]
    joined = Operation(
        name=FEATURES, kind="cat", inputs=tuple(vector.name for vector in pooled), shape=(at,),
        module_path=FEATURES, stage=HEAD,
    )  # fmt: skip
    if len(pooled) > 1:
        operations.append(joined)
    used = {name for operation in operations for name in operation.tensors.values()}
    tensors = {name: network.tensors[name] for name in used}
    return Network.of(blueprint, operations, tensors), depths


def stages_of(blueprint: Blueprint) -> list[str]:
    """Return the stages of the trunk that have operations, from the input on."""
    present = {operation.stage for operation in blueprint.trunk()}
    return [stage for stage in blueprint.stages if stage in present]


def _averaged(source: Operation) -> list[Operation]:
    """Return the operations that average a value over its positions, the last with shape (C,); the
    source itself if it has none."""
    if len(source.shape) == 1:
        return [source]

    def operation(
        name: str, kind: OperationKind, of: str, shape: tuple[int, ...], **attributes: list[int]
    ) -> Operation:
        name = f"{source.name}_{name}"
        return Operation(
            name=name, kind=kind, inputs=(of,), shape=shape, attributes=dict(attributes),
            module_path=name, stage=HEAD,
        )  # fmt: skip

    if len(source.shape) == 2:
        return [operation("mean", "mean_tokens", source.name, (source.shape[1],))]
    features = source.shape[0]
    pool = operation(
        "pool", "adaptive_avg_pool2d", source.name, (features, 1, 1), output_size=[1, 1]
    )
    return [pool, operation("vector", "flatten", pool.name, (features,))]
