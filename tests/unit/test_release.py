"""Tidying up after a run in a process that goes on: what was compiled goes, and nothing else is
imported for that."""

from __future__ import annotations

import subprocess
import sys

from bench.system import project_root

PROGRAM = """
import sys, torch
from backends import torch_device
torch.cuda.is_available = lambda: True  # as where there is a GPU
calls = []
torch._dynamo.reset = lambda: calls.append("reset")
torch_device.release()
print("inductor" if torch_device.COMPILER in sys.modules else "no compiler", calls)
torch.compile(lambda x: x + 1)
torch_device.release()
print(calls)
"""


def test_the_compiler_is_reset_only_where_it_was_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=project_root(),
        timeout=300, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["no compiler []", "['reset']"]
