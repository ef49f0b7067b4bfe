"""In which form the values of a frozen prefix are computed: the quickest for so many images."""

from __future__ import annotations

from typing import Literal, NamedTuple

from bench.accounting import multiply_adds
from bench.backend import Adapter, Prefix, ResumingTrainer
from bench.blueprint import Blueprint
from bench.environment import cores
from bench.fold import inference_form
from bench.prefix import Boundary
from bench.spec import Recipe

Form = Literal["plain", "folded", "compiled"]
"""plain: the network that is trained, as far as it is frozen; folded: a copy of that part whose
BatchNorm is inside its convolutions, as constants where the framework can use it; compiled: that
copy, through the framework's compiler."""


class From(NamedTuple):
    """From how much work on a form pays for being made."""

    form: Form
    multiply_adds: float
    """Of the whole pass; on a CPU, for each core."""


NEVER_COMPILED = (From("folded", 0.0),)
FORMS: dict[tuple[str, str], tuple[From, ...]] = {
    ("torch", "cpu"): (From("folded", 0.0), From("compiled", 1e13)),
    ("torch", "cuda"): NEVER_COMPILED,
    ("keras-torch", "cpu"): (From("plain", 0.0), From("folded", 3e11)),
    ("keras-torch", "cuda"): (From("plain", 0.0), From("folded", 3e13)),
    ("keras-tensorflow", "cpu"): (From("plain", 0.0), From("folded", 3e11)),
    ("keras-tensorflow", "cuda"): (From("plain", 0.0), From("folded", 3e13)),
    ("keras-jax", "cpu"): (From("plain", 0.0), From("folded", 3e11)),
    ("keras-jax", "cuda"): (From("plain", 0.0), From("folded", 3e13)),
}
"""Backend and kind of device → its forms, from the least work to the most. A table and not a
measurement in each run, so that the same run takes the same form again. The figures are of 2 cores
of an AMD EPYC (results/benchmarks); those of GPUs are guesses on the side of making nothing."""


def form_for(
    blueprint: Blueprint, boundary: Boundary, images: int, backend: str, device: str
) -> Form:
    """The form for a pass of ``images`` images through the operations before ``boundary``."""
    kind = device.partition(":")[0]
    before = blueprint.operations[: boundary.index]
    work = images * sum(multiply_adds(o, blueprint) for o in before)
    scale = cores() if kind == "cpu" else 1
    form = [f.form for f in FORMS[backend, kind] if f.multiply_adds * scale <= work][-1]
    has_norms = any(o.kind == "batch_norm" for o in before)
    return "plain" if form == "folded" and not has_norms else form


def make_prefix(
    form: Form,
    adapter: Adapter,
    trainer: ResumingTrainer,
    blueprint: Blueprint,
    boundary: Boundary,
    recipe: Recipe,
    device: str,
) -> Prefix:
    """What computes the values at a boundary, in a form.

    Args:
        form: Which.
        adapter: Builds it.
        trainer: Of the whole network; it has the numbers.
        blueprint: Of the whole network.
        boundary: Where the prefix ends.
        recipe: Of the run.
        device: cpu or cuda:N.
    """
    if form == "plain":
        return trainer
    network = inference_form(blueprint, trainer.tensors(), boundary)
    return adapter.build_prefix(network, recipe, device, compiled=form == "compiled")
