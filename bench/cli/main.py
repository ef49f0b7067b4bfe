"""All commands with their options; each imports what it needs, so that ``--help`` is instant."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from bench.cli.options import names, report_filters, run_choices, with_shared_options
from bench.errors import Unavailable, UserError, WorkerFailed, choose
from bench.storage.cache import unwritable

if TYPE_CHECKING:
    from bench.workers.process import Interpreters

OK, FAILED, USAGE_ERROR, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
"""Exit codes: success; a run, proof or worker failed; usage error; Ctrl-C; output pipe closed."""
STOPPED = "\nstopped: finished runs are kept; repeat the command to do the rest"
WITHOUT_FRESH = " (without --fresh, which starts over)"
DEFAULT_SUITE = "quick"
app = Typer(
    help="The same transfer-learning experiment through PyTorch and Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Json = Annotated[bool, Option("--json", help="Print one JSON document on stdout.")]
Only = Annotated[str | None, Option(help="Keep only runs with these values.")]
Python = Annotated[
    list[str] | None,
    Option("--python", help="BACKEND=PATH: Python interpreter of a backend. Repeatable."),
]


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
    except (UserError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED if isinstance(error, WorkerFailed) else USAGE_ERROR)
    except KeyboardInterrupt:
        print(_stopped_text(), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if (user_error := unwritable(error)) is None:
            raise
        print(f"error: {user_error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)


@app.command("run")
@with_shared_options()
def run(
    suite: Annotated[
        str | None, Option(help=f"Built-in suite or FILE.toml. Default: {DEFAULT_SUITE}.")
    ] = None,
    weights: Annotated[
        list[str] | None, Option(help="[BACKBONE=]pretrained, random or FILE. Repeatable.")
    ] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda:0 or all.")] = "auto",
    timeout: Annotated[float | None, Option(help="Time limit of a run, in seconds.")] = None,
    fresh: Annotated[bool, Option(help="Repeat runs that have results.")] = False,
    dry_run: Annotated[bool, Option(help="List the runs without doing them.")] = False,
    skip_unreadable: Annotated[bool, Option(help="Leave out images that cannot be read.")] = False,
    out: Annotated[Path | None, Option(help="Results folder. Default: results/runs/SUITE.")] = None,
    python: Python = None,
    as_json: Json = False,
    **shared: Any,
) -> None:
    """Do the runs that have no result yet, then write the tables and the report.

    Lists are comma-separated. Options narrow or override the suite; with --datasets and no --suite,
    the grid consists of the given options alone.
    """
    from bench.cli.run import run_command
    from bench.network.backbones import weights_choice
    from bench.runner.suite import Options

    options = Options(**run_choices(shared))
    if timeout is not None and timeout <= 0:
        raise UserError(f"--timeout {timeout:g}: a time limit must be above 0 seconds.")
    if suite is None and options.datasets is None:
        suite = DEFAULT_SUITE
    with _interruptible():
        is_ok = run_command(
            suite,
            options,
            weights=dict(weights_choice(choice) for choice in weights or ()),
            device=device,
            timeout_s=timeout,
            fresh=fresh,
            dry_run=dry_run,
            skip_unreadable=skip_unreadable,
            out=out,
            interpreters=_interpreters(python),
            as_json=as_json,
        )
    raise Exit(OK if is_ok else FAILED)


@app.command("report")
@with_shared_options(as_filters=True)
def report(
    folders: Annotated[list[Path], Argument(metavar="DIR…", help="Results folders.")],
    formats: Annotated[
        str, Option("--format", help="Formats of the tables: md, csv, html, latex.")
    ] = "md,csv",
    columns: Annotated[
        str | None, Option(help="Columns of the table of runs: fields of --json.")
    ] = None,
    sort: Annotated[
        str | None, Option(help="Fields of --json to sort by; descending: -test_top1.")
    ] = None,
    weights: Annotated[
        list[str] | None, Option(help="Keep only runs with these weights. Repeatable.")
    ] = None,
    device: Only = None,
    status: Only = None,
    page: Annotated[bool, Option(help="Write the page (report.html) too.")] = True,
    out: Annotated[
        Path | None,
        Option(
            help="Folder to write into; default the first one. By default `report A B` adds "
            "A/report-vs-B.html and A/tables/side_by_side*, and `report A B C` writes into "
            "A/with-B-C; the rest of A stays as it is."
        ),
    ] = None,
    as_json: Json = False,
    **shared: Any,
) -> None:
    """Write tables and report of results; compare two results folders.

    Lists are comma-separated.
    """
    from bench.cli.report import report_command
    from bench.report import View
    from bench.report.selection import Filters

    filters = Filters(
        **report_filters(shared),
        weights=[name for text in weights or () for name in names(text) or ()] or None,
        device=names(device),
        status=names(status),
    )
    view = View(names(columns), names(sort))
    report_command(folders, names(formats) or [], filters, view, as_json, page, out)


@app.command("list")
def list_things(
    what: Annotated[
        str,
        Argument(
            metavar="[WHAT]",
            help="cases, backbones, policies, datasets, suites or backends. Default: all lists.",
        ),
    ] = "",
    policy: Annotated[
        str, Option(help="Policy whose trainable parameters are counted.")
    ] = "retrain_all",
    head: Annotated[str, Option(help="Head of the counted networks.")] = "original",
    classes: Annotated[int, Option(min=2, help="Outputs of the head.")] = 1000,
    backend: Annotated[str, Option(help="Backend that builds and counts.")] = "torch",
    px: Annotated[
        int | None, Option(help="Input size in pixels. Default: each network's own.")
    ] = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """List cases, backbones, policies, data sets, suites or backends."""
    from bench.cli.list import Counting, list_command

    counting = Counting(policy, head, classes, backend, px, _interpreters(python))
    list_command(what, counting, as_json)


@app.command("parity")
def parity(
    backbones: Annotated[
        list[str] | None,
        Argument(
            metavar="[BACKBONE…]",
            help="Default: those of the suite quick; in native mode, resnet50.",
        ),
    ] = None,
    dtype: Annotated[str | None, Option(help="float64, float32. Default: float64.")] = None,
    px: Annotated[
        int | None, Option(min=1, max=2048, help="Height and width of the input, in pixels.")
    ] = None,
    policy: Annotated[str | None, Option(help="Default: all. See `list policies`.")] = None,
    boundary: Annotated[
        str | None, Option(help="First stage or module that fine_tune_last trains.")
    ] = None,
    optimizer: Annotated[str, Option(help="sgd, adamw.")] = "sgd,adamw",
    backends: Annotated[
        str, Option(help="Two or more; the first is compared with each other one.")
    ] = "torch,keras-tensorflow",
    head: Annotated[
        str | None, Option(help="As in `run`. Default: original; in native mode, linear.")
    ] = None,
    device: Annotated[str, Option(help="auto, cpu or cuda:0.")] = "auto",
    mode: Annotated[
        str, Option(help="matched: prove parity. native: list the settings that differ.")
    ] = "matched",
    fresh: Annotated[bool, Option(help="Repeat proofs that were shown before.")] = False,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Prove that backends compute the same, or name the first operation that differs.

    Lists are comma-separated. Proofs are kept; those in float64 appear in the rows of reports.
    """
    from bench.cli.parity import parity_command

    with _interruptible():
        is_ok = parity_command(
            list(dict.fromkeys(backbones or ())),
            policies=names(policy),
            optimizers=names(optimizer) or [],
            dtypes=names(dtype),
            backends=names(backends) or [],
            head=head,
            px=px,
            boundary=boundary,
            device=device,
            mode=mode,
            fresh=fresh,
            interpreters=_interpreters(python),
            as_json=as_json,
        )
    raise Exit(OK if is_ok else FAILED)


@app.command("doctor")
def doctor(python: Python = None, as_json: Json = False) -> None:
    """Check this machine; print the command that mends what does not work."""
    from bench.cli.doctor import doctor_command

    raise Exit(OK if doctor_command(_interpreters(python), as_json) else FAILED)


@contextmanager
def _interruptible() -> Iterator[None]:
    """On Ctrl-C, print that finished work is kept and exit."""
    try:
        yield
    except KeyboardInterrupt:
        print(_stopped_text(), file=sys.stderr)
        raise Exit(INTERRUPTED) from None


def _stopped_text() -> str:
    return STOPPED + (WITHOUT_FRESH if "--fresh" in sys.argv else "")


def _interpreters(choices: list[str] | None) -> Interpreters:
    from bench.catalog.backends import BACKENDS
    from bench.workers.process import Interpreters

    chosen = {}
    for choice in choices or ():
        backend, _, path = choice.partition("=")
        choose("backend in --python", backend, BACKENDS)
        interpreter = Path(path).expanduser()
        if not path or not interpreter.is_file():
            raise UserError(f"--python {choice}: '{path}' is not an interpreter.")
        chosen[backend] = interpreter.absolute()
    return Interpreters(chosen)
