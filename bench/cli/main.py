"""The command line: adds all commands, prints expected errors, and exits."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

from typer import Exit, Typer

from bench.cli import options
from bench.errors import Unavailable, UserError, WorkerFailed
from bench.storage.cache import unwritable

OK, FAILED, USAGE_ERROR, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
"""Exit codes: success; a run, proof or worker failed; usage error; Ctrl-C; output pipe closed."""
app = Typer(
    help="The same transfer-learning experiment through PyTorch and Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line and exit; expected errors are printed without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # some terminals cannot encode a dash
            stream.reconfigure(errors="replace")
    try:
        app(standalone_mode=True)
    except SystemExit:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # Typer's sign of a closed pipe
            sys.exit(CLOSED_PIPE)
        raise
    except (UserError, Unavailable, OSError) as error:
        said = unwritable(error) if isinstance(error, OSError) else error
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(FAILED if isinstance(error, WorkerFailed) else USAGE_ERROR)
    except KeyboardInterrupt:
        print(_stopped_text(), file=sys.stderr)
        sys.exit(INTERRUPTED)


def _add_command(name: str, declared: type[Any]) -> None:
    """Add a command: the function ``NAME_command`` of ``bench/cli/NAME.py``, which takes the
    declared options and returns False if something failed."""

    def run(given: Any) -> None:
        module = import_module(f"bench.cli.{name}")  # only now, so that --help is instant
        try:
            is_ok = getattr(module, f"{name}_command")(given)
        except KeyboardInterrupt:
            if not hasattr(given, "fresh"):
                raise  # there is no finished work to keep
            print(_stopped_text(), file=sys.stderr)
            raise Exit(INTERRUPTED) from None
        raise Exit(FAILED if is_ok is False else OK)

    app.command(name)(options.as_command(declared, run))


_add_command("run", options.RunOptions)
_add_command("report", options.ReportOptions)
_add_command("list", options.ListOptions)
_add_command("parity", options.ParityOptions)
_add_command("doctor", options.DoctorOptions)


def _stopped_text() -> str:
    without = " (without --fresh, which starts over)" if "--fresh" in sys.argv else ""
    return f"\nstopped: finished runs are kept; repeat the command to do the rest{without}"
