"""The command line. Imports stay inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.parse import names, numbers
from bench.cli.recipe_options import recipe_choices, recipe_filters, recipe_options
from bench.errors import Unavailable, UserError, WorkerFailed
from bench.storage.cache import unwritable

if TYPE_CHECKING:
    from bench.runner.suite import Options
    from bench.workers.process import Interpreters
OK, NO, WRONG, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
"""Exit codes: done; the answer is no; the question was wrong; Ctrl-C; the reader went away."""
STOPPED = "\nstopped: what is finished is kept, the same command goes on from there"
BEGINS_ANEW = " (without --fresh, which begins anew)"
DEFAULT_SUITE = "quick"
app = typer.Typer(
    help="The same transfer-learning experiment through PyTorch and Keras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Only = Annotated[str | None, typer.Option(help="Only these.")]
Python = Annotated[
    list[str] | None,
    typer.Option("--python", help="BACKEND=PATH: interpreter for a backend. Repeatable."),
]


def main() -> None:
    """Run a command; mistakes of the user end without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a dash is no error
            stream.reconfigure(errors="replace")
    try:
        app(standalone_mode=True)
    except SystemExit:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # typer's word for a closed pipe
            sys.exit(CLOSED_PIPE)
        raise
    except (UserError, Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NO if isinstance(error, WorkerFailed) else WRONG)
    except KeyboardInterrupt:
        print(_stopped(), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        told = unwritable(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(WRONG)


@app.command("run")
@recipe_options()
def run(
    suite: Annotated[
        str | None, typer.Option(help=f"Name or FILE.toml. Default: {DEFAULT_SUITE}.")
    ] = None,
    cases: Annotated[str | None, typer.Option(help="1 to 4.")] = None,
    datasets: Annotated[
        str | None, typer.Option(help="photos, mnist5k, folder:PATH, rvl_cdip[:PATH].")
    ] = None,
    backbones: Annotated[
        str | None, typer.Option(help="See `list backbones`; or torchvision:…, timm:…, module:….")
    ] = None,
    policies: Annotated[str | None, typer.Option(help="See `list policies`.")] = None,
    backends: Annotated[str | None, typer.Option(help="See `list backends`.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2.")] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Training images; default the suite's.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="matched, native.")] = None,
    tune: Annotated[
        str | None, typer.Option(help="lr: validation chooses the learning rate of every run.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="[BACKBONE=]pretrained, random or a file. Repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0 or all.")] = "auto",
    timeout: Annotated[float | None, typer.Option(help="Seconds for one run.")] = None,
    fresh: Annotated[bool, typer.Option(help="Run again what is there.")] = False,
    dry_run: Annotated[bool, typer.Option(help="List the runs and stop.")] = False,
    skip_unreadable: Annotated[
        bool, typer.Option(help="Leave out images that cannot be read.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Results folder.")] = None,
    python: Python = None,
    as_json: Json = False,
    **recipe: Any,
) -> None:
    """Run what is missing, then write the tables and the report.

    Lists are comma-separated. An option narrows the suite or overrides it; with --datasets and no
    --suite, the grid of just the options given is run.
    """
    from bench.cli.run import RunCommand, run_command
    from bench.runner.suite import Options

    options = Options(
        cases=numbers("--cases", cases),
        datasets=names(datasets),
        backbones=names(backbones),
        policies=names(policies),
        backends=names(backends),
        seeds=numbers("--seeds", seeds),
        train_images=train_images,
        mode=names(mode),
        **recipe_choices(recipe),
        tune=tune,
    )
    if timeout is not None and timeout <= 0:
        raise UserError(f"--timeout {timeout:g} is not a time.", "Give seconds above 0.")
    command = RunCommand(
        suite=_suite_of(suite, options),
        options=options,
        weights=_weights(weights or []),
        device=device,
        timeout_s=timeout,
        fresh=fresh,
        dry_run=dry_run,
        skip_unreadable=skip_unreadable,
        out=out,
        interpreters=_interpreters(python or []),
        as_json=as_json,
    )
    with _interruptible():
        good = run_command(command)
    raise typer.Exit(OK if good else NO)


@app.command("report")
@recipe_options(as_filters=True)
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR…", help="Results folders.")],
    formats: Annotated[
        str, typer.Option("--format", help="md, csv, html, latex: tables to write.")
    ] = "md,csv",
    columns: Annotated[
        str | None, typer.Option(help="Fields of --json for the table of runs.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="By fields of --json; descending: -test_top1.")
    ] = None,
    cases: Only = None,
    datasets: Only = None,
    backbones: Only = None,
    policies: Only = None,
    backends: Only = None,
    seeds: Only = None,
    train_images: Only = None,
    mode: Only = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="As in `run`, or several. Repeatable.")
    ] = None,
    tune: Only = None,
    device: Only = None,
    status: Only = None,
    page: Annotated[bool, typer.Option(help="Write the page (report.html) too.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write into; default the first one. By default `report A B` adds "
            "A/report-vs-B.html and A/tables/side_by_side*; the rest of A stays as it is."
        ),
    ] = None,
    as_json: Json = False,
    **recipe: Any,
) -> None:
    """Tables and report from results, without any framework; of two folders, what differs.

    Lists are comma-separated.
    """
    from bench.cli.report import ReportCommand, report_command
    from bench.report import View
    from bench.report.select import Filters

    filters = Filters(
        cases=numbers("--cases", cases),
        datasets=names(datasets),
        backbones=names(backbones),
        policies=names(policies),
        backends=names(backends),
        seeds=numbers("--seeds", seeds),
        train_images=numbers("--train-images", train_images),
        mode=names(mode),
        weights=[name for text in weights or () for name in names(text) or ()] or None,
        tune=names(tune),
        device=names(device),
        status=names(status),
        **recipe_filters(recipe),
    )
    view = View(names(columns), names(sort))
    report_command(ReportCommand(folders, names(formats) or [], filters, view, as_json, page, out))


@app.command("list")
def list_things(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help="cases, backbones, policies, datasets, suites or backends. Default: these.",
        ),
    ] = "",
    policy: Annotated[str, typer.Option(help="For counting trainable parameters.")] = "retrain_all",
    head: Annotated[str, typer.Option(help="For counting.")] = "original",
    classes: Annotated[int, typer.Option(min=2, help="For counting.")] = 1000,
    backend: Annotated[str, typer.Option(help="That builds and counts the network.")] = "torch",
    px: Annotated[int | None, typer.Option(help="Input size; default the network's own.")] = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """What there is."""
    from bench.cli.list import Counting, list_command

    counting = Counting(policy, head, classes, backend, px, _interpreters(python or []))
    list_command(what, counting, as_json)


@app.command("parity")
def parity(
    backbones: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BACKBONE…]",
            help="Default: those of suite quick; in native mode, resnet50.",
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float64, float32. Default: float64.")] = None,
    px: Annotated[
        int | None, typer.Option(min=1, max=2048, help="Height and width of the input.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Default: all. See `list policies`.")] = None,
    boundary: Annotated[
        str | None, typer.Option(help="From where fine_tune_last trains: a stage or a module.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="sgd, adamw.")] = "sgd,adamw",
    backends: Annotated[
        str, typer.Option(help="The first is compared with each of the others.")
    ] = "torch,keras-tensorflow",
    head: Annotated[
        str | None, typer.Option(help="As in `run`. Default: original; in native mode, linear.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:0.")] = "auto",
    mode: Annotated[
        str, typer.Option(help="matched: the proof. native: each knob that differs, side by side.")
    ] = "matched",
    fresh: Annotated[bool, typer.Option(help="Show again what was shown.")] = False,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Prove that backends compute the same thing; names the first operation that differs.

    Lists are comma-separated. What is shown is kept; in float64 it marks the rows of reports.
    """
    from bench.cli.parity import Asked, parity_command

    asked = Asked(
        backbones=list(dict.fromkeys(backbones or [])),
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
        interpreters=_interpreters(python or []),
    )
    with _interruptible():
        good = parity_command(asked, as_json)
    raise typer.Exit(OK if good else NO)


@app.command("doctor")
def doctor(python: Python = None, as_json: Json = False) -> None:
    """What works on this machine, and the command that mends what does not."""
    from bench.cli.doctor import doctor_command

    raise typer.Exit(OK if doctor_command(_interpreters(python or []), as_json) else NO)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a command that keeps what it has with a word about that."""
    try:
        yield
    except KeyboardInterrupt:
        print(_stopped(), file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _stopped() -> str:
    return STOPPED + (BEGINS_ANEW if "--fresh" in sys.argv else "")


def _suite_of(suite: str | None, options: Options) -> str | None:
    """The suite to load; None where the options alone make the grid."""
    if suite is None and options.datasets is None:
        return DEFAULT_SUITE
    return suite


def _weights(choices: list[str]) -> dict[str, str]:
    from bench.network.backbones import weights_choice

    return dict(weights_choice(choice) for choice in choices)


def _interpreters(choices: list[str]) -> Interpreters:
    from bench.catalog.backends import BACKENDS
    from bench.errors import choose
    from bench.workers.process import Interpreters

    chosen = {}
    for choice in choices:
        backend, _, path = choice.partition("=")
        choose("backend in --python", backend, BACKENDS)
        interpreter = Path(path).expanduser()
        if not path or not interpreter.is_file():
            raise UserError(f"--python {choice}: '{path}' is no interpreter.")
        chosen[backend] = interpreter.absolute()
    return Interpreters(chosen)
