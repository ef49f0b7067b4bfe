"""Check that a device has what a run needs, whichever framework drives it."""

from __future__ import annotations

from collections.abc import Callable

from bench.errors import Unavailable
from bench.spec.run import Precision, why_not_on_a_cpu

LEAST_CAPABILITY: dict[Precision, tuple[int, int]] = {"bf16": (8, 0), "tf32": (8, 0)}
"""Precision → compute capability from which on a GPU multiplies in it (docs.nvidia.com, CUDA
Programming Guide, "Compute Capabilities"). Older ones emulate bf16, and ignore TF32."""


def check_device(
    library: str, device: str, visible: list[str], precision: Precision,
    blind_because: Callable[[], str | None] = lambda: None,
) -> None:  # fmt: skip
    """Raise Unavailable if a framework does not see the device, or a CPU lacks the precision.

    Args:
        library: Name and version of the framework, for the message.
        device: cpu or cuda:N.
        visible: Devices that the framework sees.
        precision: Precision of the run.
        blind_because: Returns why the framework sees no GPU, where it tells.
    """
    if device not in visible:
        reason = blind_because()
        why = "" if reason is None else f" ({reason})"
        raise Unavailable(
            f"{library} does not see {device}, only {', '.join(visible)}{why}; "
            "run `python run_bench.py doctor` for details"
        )
    if device == "cpu" and (reason := why_not_on_a_cpu(precision)) is not None:
        raise Unavailable(reason)


def check_capability(gpu: str, capability: tuple[int, int], precision: Precision) -> None:
    """Raise Unavailable if a GPU of this compute capability cannot multiply in the precision."""
    least = LEAST_CAPABILITY.get(precision)
    if least is not None and capability < least:
        major, minor = capability
        raise Unavailable(
            f"{gpu} has no {precision}: its compute capability is {major}.{minor}, and {precision} "
            f"needs {least[0]}.{least[1]}; use --precision fp32 or fp16"
        )
