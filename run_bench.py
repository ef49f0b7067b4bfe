"""Start the command line: ``python run_bench.py COMMAND``."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are imported: no traceback

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSTALLED = HERE / ".venv" / "bin" / "python"
"""Interpreter of the environment that ``make bench`` creates."""

try:
    from bench.cli.main import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("bench", "backends"):
        raise
    if Path(sys.prefix) != HERE / ".venv" and INSTALLED.exists():
        # Commands that Thawbench prints begin with `python`, which may be any interpreter.
        os.execv(INSTALLED, [str(INSTALLED), *sys.argv])
    print(
        f"error: {error.name} is not installed for {sys.executable}.\nTo install all: make bench",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    main()
