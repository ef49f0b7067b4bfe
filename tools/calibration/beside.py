"""Start a program with a process beside it that computes until the program ends.

``python -m tools.calibration.beside PROGRAM ARGUMENT…``: the program takes this process's place, so
that its pipes stay.
"""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import os
parent = int(os.environ["THAWBENCH_PARENT"])
while os.path.exists(f"/proc/{parent}"):
    for _ in range(100_000):
        pass
"""


def main() -> None:
    """Start the busy process, then become the program."""
    environment = {**os.environ, "THAWBENCH_PARENT": str(os.getpid())}
    subprocess.Popen(
        [sys.executable, "-c", CODE], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
