"""The command line: adds all commands, prints expected errors, and exits."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import traceback
from importlib import import_module
from typing import Any, NoReturn

from typer import Exit, Typer
from typer.core import TyperGroup

from bench.cli import options
from bench.cli.output import refuse, show, tell
from bench.errors import AnsweredInterrupt, Unavailable, UserError, WorkerFailed, first_line
from bench.storage.cache import unwritable
from bench.storage.text_files import json_text

OK, FAILED, USAGE_ERROR, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
"""Exit codes: success; a run, proof or worker failed; usage error; Ctrl-C; output pipe closed."""
BEYOND: dict[type[Exception], str] = {
    RecursionError: "Something is nested too deep",
    OverflowError: "A number is too large",
    MemoryError: "The memory of this machine is not enough",
}
"""Exception → what about the input causes it, wherever it is noticed."""


class Commands(TyperGroup):
    """The commands; a usage error is a document on stdout, too, where ``--json`` is given."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the whole first paragraph of its help, which Click would cut."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            text = (command.help or "") if command is not None else ""
            rows.append((name, " ".join(text.split("\n\n")[0].split())))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Typer brings its own copy of Click, whose usage errors have this method.
            words = getattr(error, "format_message", None)
            if words is not None and _wants_json():
                show(json_text({"error": {"message": words(), "hint": None}}))
            raise


app = Typer(
    cls=Commands,
    help="The same transfer-learning experiment through PyTorch and Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # tables of Rich cut words on a terminal of 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line and exit; errors are printed without a traceback."""
    _open_standard_streams()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as run_bench.py left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # some terminals cannot encode a dash
            stream.reconfigure(errors="replace")
    try:
        app(standalone_mode=True)
    except SystemExit:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # Typer's sign of a closed pipe
            sys.exit(CLOSED_PIPE)
        raise
    except KeyboardInterrupt:
        tell(_stopped_text())
        sys.exit(INTERRUPTED)
    except Exception as error:
        message, hint, code = _explained(error)
        code = getattr(error, "exit_code", code)
        refuse(message, hint, _wants_json() and not getattr(error, "is_answered", False))
        sys.exit(code)


def _explained(error: Exception) -> tuple[str, str | None, int]:
    """Return the message, hint and exit code of an error; the traceback of a fault of Thawbench is
    kept in a file."""
    if isinstance(error, OSError):
        place = f" '{error.filename}'" if error.filename else ""
        error = unwritable(error) or UserError(f"Cannot use{place}: {error.strerror or error}.")
    if isinstance(error, UserError):
        return error.message, error.hint, USAGE_ERROR
    if isinstance(error, Unavailable):
        return str(error), None, FAILED if isinstance(error, WorkerFailed) else USAGE_ERROR
    for kind, message in BEYOND.items():
        if isinstance(error, kind):
            return f"{message}: {first_line(error)}.", None, USAGE_ERROR
    with tempfile.NamedTemporaryFile(
        "w", prefix="thawbench-", suffix=".txt", delete=False, errors="replace"
    ) as file:
        traceback.print_exc(file=file)
    what = f"{type(error).__name__}: {first_line(error)}"
    return f"Thawbench failed: {what}.", f"Report it with the traceback in {file.name}.", FAILED


def _wants_json() -> bool:
    return "--json" in sys.argv


def _open_standard_streams() -> None:
    """Open the null device in place of standard streams that are closed (cron, daemons)."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _end(number: int, frame: object) -> NoReturn:
    """End the command as Ctrl-C does, workers included, with the exit code of a signal."""
    raise SystemExit(128 + number)


def _add_command(name: str, declared: type[Any]) -> None:
    """Add a command: the function ``NAME_command`` of ``bench/cli/NAME.py``, which takes the
    declared options and returns False if something failed."""

    def run(given: Any) -> None:
        module = import_module(f"bench.cli.{name}")  # only now, so that --help is instant
        try:
            is_ok = getattr(module, f"{name}_command")(given)
        except KeyboardInterrupt as stop:
            if hasattr(given, "fresh"):
                tell(_stopped_text())
            elif not isinstance(stop, AnsweredInterrupt):
                refuse(
                    "Interrupted before there was an answer.", "Repeat the command.", _wants_json()
                )
            raise Exit(INTERRUPTED) from None
        raise Exit(FAILED if is_ok is False else OK)

    app.command(name)(options.as_command(declared, run))


_add_command("run", options.RunOptions)
_add_command("report", options.ReportOptions)
_add_command("list", options.ListOptions)
_add_command("parity", options.ParityOptions)
_add_command("speed", options.SpeedOptions)
_add_command("gate", options.GateOptions)
_add_command("advise", options.AdviseOptions)
_add_command("doctor", options.DoctorOptions)


def _stopped_text() -> str:
    without = " (without --fresh, which starts over)" if "--fresh" in sys.argv else ""
    return f"\nstopped: what was finished is kept; repeat the command to do the rest{without}"
