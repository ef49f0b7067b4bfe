"""Attribution on a GPU: profile a training step twice, once with every kernel waited for."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from bench.gate.attribution import find_causes
from bench.speed.cases import cases, prepare, suite_size
from bench.speed.launch import Place
from bench.storage.cache import cache_root
from bench.workers.process import Interpreters
from tools.gpu_steps.common import Findings, StepOptions, noted

SLOWING = {"cuda": {"CUDA_LAUNCH_BLOCKING": "1"}, "cpu": {"OMP_NUM_THREADS": "1"}}
"""Kind of device → variables that make the second side slower."""
POLICY = "fine_tune_all"


def causes(options: StepOptions) -> Findings:
    """Return the parts and operations in which the slower side loses time, and what both cost."""
    size = suite_size("smallest" if options.small else "small", options.device)
    size = replace(size, policies=(POLICY,))
    place = Place(Interpreters({}), cache_root(), options.device)
    slow = replace(place, variables=SLOWING[options.device.partition(":")[0]])
    own = prepare(cases(size, [options.backend]), size, options.device, place.interpreters,
                  place.cache, details=False)  # fmt: skip
    found: Findings = {}
    with noted(found, "causes"):
        answers = find_causes(
            {"A": own, "B": own}, {"A": place, "B": slow},
            {case.name: "slower" for case in own}, Random(0),
        )  # fmt: skip
        found["causes"] = [one.model_dump(mode="json") for one in answers]
    return found
