"""Flags of a run: set for matched runs whatever a library set before, left alone in native mode."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from backends.requirements import check_capability, check_device
from bench.catalog.backends import BACKENDS
from bench.errors import Unavailable
from bench.spec.run import Precision
from bench.system import project_root
from tests.frameworks import HERE

TORCH = """
import json, torch
from backends import torch_device as device
torch.backends.fp32_precision = "tf32"  # as another library may
cpu = torch.device("cpu")
found = []
device.prepare("cpu", "fp32")
knobs = device.knobs(cpu)
older = lambda: [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
found.append([knobs["tf32_matmul"], knobs["tf32_convolution"], knobs["cudnn_benchmark"], *older()])
device.allow_tf32(True)
knobs = device.knobs(cpu)
found.append([knobs["tf32_matmul"], knobs["tf32_convolution"], *older()])
print(json.dumps(found))
"""
NATIVE_TORCH = """
import json, torch
from backends import torch_device as device
before = [torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision,
          torch.backends.cudnn.benchmark]
device.use("cpu", "fp32")
after = [torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision,
         torch.backends.cudnn.benchmark]
print(json.dumps([before, after]))
"""
JAX = """
import json
from backends.keras_adapter.engines.jax import engine
made = engine()
found = []
for options in ({}, {"native": True}):
    made.prepare("cpu", "fp32", **options)
    found.append([made.knobs()["matmul_precision"], made.knobs()["tf32"]])
print(json.dumps(found))
"""
TENSORFLOW = """
import json
import tensorflow as tf
from backends.keras_adapter.engines.tensorflow import engine
made = engine()
found = []
for options in ({"native": True}, {}):
    made.start("cpu")  # comes before, and must change nothing
    made.prepare("cpu", "fp32", **options)
    assert made.knobs()["tf32"] is False, "on a CPU there is no TF32"
    found.append(tf.config.experimental.tensor_float_32_execution_enabled())
print(json.dumps(found))
"""
JAX_BLIND = """
import json
import jax
from backends.keras_adapter.engines import jax as module
made = module.engine()
def broken(*_):
    raise RuntimeError(WORDS)
module.jax.devices = broken
try:
    print(json.dumps([made.devices(), made.blind_because()]))
except RuntimeError as error:
    print(json.dumps([made.is_out_of_memory(error), str(error)]))
"""
COMPILED = """
import json
import torch
from backends import torch_device as device
from bench.errors import Unavailable
made = []
def fake(function, dynamic):
    def compiled(x):
        made.append(len(x))
        if len(made) == 3:
            raise RuntimeError("illegal memory access")
        if len(made) == 4:
            from torch._inductor.exc import InvalidCxxCompiler
            raise InvalidCxxCompiler()
        return function(x) * 10
    return compiled
torch.compile = fake
step = device.Compiled(lambda x: x.sum(), 4)
found = [float(step(torch.ones(size))) for size in (3, 4, 2, 4)]
for _ in range(2):
    try:
        step(torch.ones(4))
    except Exception as error:
        found.append([type(error).__name__, "torch.compile failed" in str(error)])
print(json.dumps(found))
"""


def test_one_batch_size_is_compiled_and_only_a_compilers_error_is_called_that() -> None:
    """A validation split smaller than a batch comes first, and must not decide the size."""
    assert _printed("torch", COMPILED) == [
        3.0, 40.0, 2.0, 40.0, ["RuntimeError", False], ["Unavailable", True],
    ]  # fmt: skip


UNAVAILABLE = """
import json
from backends.worker import load_adapter
from bench.catalog.backends import BACKENDS
from bench.errors import Unavailable
from bench.network.freezing import plan_training
from bench.spec.plain import TRAIN_ALL, plain_recipe
from bench.speed.selfcheck import convolutional_network
network = convolutional_network(16, 4)
plan = plan_training(network.blueprint, TRAIN_ALL)
found = []
for precision in ("tf32", "fp16"):
    recipe = plain_recipe("original", 16, 2).model_copy(update={"precision": precision})
    try:
        load_adapter(NAME, BACKENDS[NAME].adapter).build(network, plan, recipe, "cpu")
    except Unavailable as error:
        found.append(str(error))
print(json.dumps(found))
"""


def _printed(backend: str, code: str) -> Any:
    done = subprocess.run(
        [str(HERE.of(backend)), "-P", "-c", code],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(project_root()),
             **BACKENDS[backend].environment({}, "cpu")},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


JAX_MEMORY = """
import json
import numpy as np
import jax
from backends.keras_adapter.engines.jax import CompiledFunction
programs = []
function = CompiledFunction(lambda x: x @ x.T, programs)
for size in (256, 256, 512):
    jax.block_until_ready(function(jax.device_put(np.zeros((size, 1024), np.float32))))
print(json.dumps([[p.batch_size, p.device_bytes] for p in programs]))
"""


def test_the_memory_of_a_jax_program_is_that_of_its_values() -> None:
    """The allocator's own peak is that of all runs of the process."""
    (small, small_bytes), (large, large_bytes) = _printed("keras-jax", JAX_MEMORY)
    assert (small, large) == (256, 512)
    for size, found in ((small, small_bytes), (large, large_bytes)):
        values = 4 * (size * 1024 + size * size)
        assert values <= found < 3 * values


FRESH = """
import json
from bench.training import memory
memory.note_fresh("cpu")
first = memory.fresh_bytes()
held = bytearray(200_000_000)
memory.note_fresh("cpu")
again = memory.fresh_bytes()
memory.note_fresh("cuda:0")
print(json.dumps([first == again, memory.fresh_bytes() - first > 150_000_000]))
"""


def test_what_a_gpu_takes_of_the_host_is_no_runs_own() -> None:
    """Host memory that a GPU takes is remembered once, when the framework begins to use it."""
    assert _printed("torch", FRESH) == [True, True]


def test_torch_obeys_the_run_and_no_library() -> None:
    """With the older flags alone, ``allow_tf32 = False`` left TF32 on here; with the newer ones
    alone, reading the older ones raised, as Inductor does."""
    assert _printed("torch", TORCH) == [
        [False, False, True, False, False],
        [True, True, True, True],
    ]


def test_native_torch_keeps_what_a_user_has() -> None:
    before, after = _printed("torch", NATIVE_TORCH)
    assert before == after
    assert after[2] is False, "cuDNN's search is off by default"


def test_native_jax_and_tensorflow_keep_their_own_precision() -> None:
    matched, native = _printed("keras-jax", JAX)
    assert matched == ["highest", False]
    assert native == [None, False], "on a CPU there is no TF32"
    assert _printed("keras-tensorflow", TENSORFLOW) == [True, False]


def test_jax_that_cannot_start_on_a_gpu_says_why() -> None:
    """Its plugin raises where the driver is too old; a full card is another thing."""
    old = "Unable to initialize backend 'cuda': INTERNAL: no supported devices found for CUDA"
    assert _printed("keras-jax", JAX_BLIND.replace("WORDS", repr(old))) == [["cpu"], old]
    full = "Unable to initialize backend 'cuda': CUDA_ERROR_OUT_OF_MEMORY: out of memory"
    assert _printed("keras-jax", JAX_BLIND.replace("WORDS", repr(full))) == [True, full]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_cpu_lacks_is_unavailable(backend: str) -> None:
    code = UNAVAILABLE.replace("NAME", repr(backend))
    assert _printed(backend, code) == [
        f"{precision} needs a GPU; on a CPU use --precision fp32 or bf16"
        for precision in ("tf32", "fp16")
    ]


def test_a_device_that_is_not_seen_has_a_reason() -> None:
    with pytest.raises(Unavailable, match=r"only cpu \(the driver is too old\); run"):
        check_device("PyTorch 2", "cuda:0", ["cpu"], "fp32", lambda: "the driver is too old")


@pytest.mark.parametrize(
    ("capability", "precision", "has_it"),
    [
        ((7, 0), "bf16", False),  # Volta emulates it
        ((7, 5), "tf32", False),
        ((7, 5), "fp16", True),
        ((7, 0), "fp32", True),
        ((8, 0), "bf16", True),
        ((9, 0), "tf32", True),
    ],
)
def test_an_older_card_is_asked_for_nothing_that_it_emulates(
    capability: tuple[int, int], precision: Precision, has_it: bool
) -> None:
    if has_it:
        check_capability("A card", capability, precision)
        return
    with pytest.raises(Unavailable, match=f"A card has no {precision}"):
        check_capability("A card", capability, precision)
