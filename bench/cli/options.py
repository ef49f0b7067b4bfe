"""The options of all commands, each written once, and lists on the command line.

Each dataclass is a command: its docstring is the text of ``--help``, its fields are the options.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

from typer import Argument, Option

from bench.errors import UserError, choose
from bench.spec.run import RECIPE_OPTIONS

if TYPE_CHECKING:
    from bench.data import FileRules
    from bench.workers.process import Interpreters

DEFAULT_SUITE = "quick"
FILTER = "Keep only runs with these values."
JSON = "Print one JSON document on stdout."
PYTHON = "BACKEND=PATH: Python interpreter of a backend. Repeatable."
MOST_LETTERS = 40
"""Letters of a wrong number that a message repeats."""
_parameter = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)


def option(text: str, default: Any = None, flag: str | None = None, **more: Any) -> Any:
    """Return a field of a dataclass that is an option of a command."""
    declared = Option(*[flag] if flag else [], help=text, **more)
    return field(default=default, metadata={"typer": declared})


def argument(text: str, metavar: str, default: Any = None) -> Any:
    """Return a field of a dataclass that is an argument of a command."""
    return field(default=default, metadata={"typer": Argument(metavar=metavar, help=text)})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Do the runs that have no result yet, then write the tables and the report.

    Lists are comma-separated. Options narrow or override the suite; with --datasets and no --suite,
    the grid consists of the given options alone.
    """

    suite: str | None = option(f"Built-in suite or FILE.toml. Default: {DEFAULT_SUITE}.")
    shared: Mapping[str, Any] = field(default_factory=dict)
    """Options that ``report`` has, too; see ``run_choices``."""
    weights: list[str] | None = option("[BACKBONE=]pretrained, random or FILE. Repeatable.")
    device: str = option("auto, cpu, cuda:0 or all.", "auto")
    timeout: float | None = option("Time limit of a run, in seconds.")
    fresh: bool = option("Repeat runs that have results.", False)
    prove: bool = option("First prove that the backends compute the same, where not proved.", False)
    dry_run: bool = option("List the runs without doing them.", False)
    skip_unreadable: bool = option("Leave out images that cannot be read.", False)
    drop_duplicates: bool = option("Leave out images in two classes or two splits.", False)
    test_from: str | None = option("val or train:15%: source of missing test images.")
    folds: int | None = option(
        "Cross-validate folder:PATH: every image is tested once.", min=2, max=100
    )
    group_by: str | None = option(
        "Regular expression for paths in folder:PATH: images in which it matches the same text "
        "belong together (one patient, video or document) and stay in one split."
    )
    max_pixels: int | None = option("Largest image, in pixels. Default: 178,956,970.", min=1)
    out: Path | None = option("Results folder. Default: results/runs/SUITE.")
    python: list[str] | None = option(PYTHON)
    yes: bool = option("Plan more than 10,000 runs.", False)
    as_json: bool = option(JSON, False, "--json")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write tables and report of results; compare two results folders.

    Lists are comma-separated.
    """

    folders: list[Path] = argument("Results folders, or a page of a report.", "DIR…", MISSING)
    formats: str = option("Formats of the tables: md, csv, html, latex.", "md,csv", "--format")
    columns: str | None = option("Columns of the table of runs: fields of --json.")
    sort: str | None = option("Fields of --json to sort by; descending: -test_top1.")
    shared: Mapping[str, str | None] = field(default_factory=dict)
    """Options that ``run`` has, too, here each a list of wanted values; see ``report_filters``."""
    weights: list[str] | None = option("Keep only runs with these weights. Repeatable.")
    device: str | None = option(FILTER)
    status: str | None = option(FILTER)
    margin: float = option("Difference in accuracy that does not matter, in points.", 1.0)
    page: bool = option("Write the page (report.html) too.", True)
    out: Path | None = option(
        "Folder to write into; default the first one. By default `report A B` adds "
        "A/report-vs-B.html and A/tables/side_by_side*, and `report A B C` writes into "
        "A/with-B-C; the rest of A stays as it is."
    )
    as_json: bool = option(JSON, False, "--json")


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """List cases, backbones, policies, data sets, suites or backends."""

    what: str = argument(
        "cases, backbones, policies, datasets, suites or backends. Default: all lists.",
        "[WHAT]",
        "",
    )
    policy: str = option("Policy whose trainable parameters are counted.", "retrain_all")
    head: str = option("Head of the counted networks.", "original")
    classes: int = option("Outputs of the head.", 1000, min=2)
    backend: str = option("Backend that builds and counts.", "torch")
    px: int | None = option("Input size in pixels. Default: each network's own.")
    python: list[str] | None = option(PYTHON)
    as_json: bool = option(JSON, False, "--json")


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """Prove that backends compute the same, or name the first operation that differs.

    Lists are comma-separated. Proofs are kept; those in float64 appear in the rows of reports.
    """

    backbones: list[str] | None = argument(
        "Default: those of the suite quick; in native mode, resnet50.", "[BACKBONE…]"
    )
    dtype: str | None = option("float64, float32. Default: float64.")
    px: int | None = option("Height and width of the input, in pixels.", min=1, max=2048)
    policy: str | None = option("Default: all. See `list policies`.")
    boundary: str | None = option("First stage or module that fine_tune_last trains.")
    optimizer: str = option("sgd, adamw.", "sgd,adamw")
    backends: str = option(
        "Two or more; the first is compared with each other one.", "torch,keras-tensorflow"
    )
    head: str | None = option("As in `run`. Default: original; in native mode, linear.")
    device: str = option("auto, cpu or cuda:0.", "auto")
    mode: str = option("matched: prove parity. native: list the settings that differ.", "matched")
    fresh: bool = option("Repeat proofs that were shown before.", False)
    python: list[str] | None = option(PYTHON)
    as_json: bool = option(JSON, False, "--json")


BASELINES_HELP = "Folder of stored baselines."
SUITE_HELP = "Speed suite: smallest, small, calibration or usual."
TARGET_HELP = "Your own step instead of a suite: FILE.py:FUNCTION."


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """Measure training speed; `speed history` shows stored baselines over time.

    Lists are comma-separated. Each launch is a fresh process that times all cases of a backend.
    """

    what: str = argument("history, or nothing to measure.", "[history]", "")
    suite: str = option(SUITE_HELP, "small")
    backends: str | None = option("See `list backends`. Default: torch,keras-tensorflow.")
    target: str | None = option(TARGET_HELP)
    launches: int | None = option(
        "Number of launches. Default: the suite's, 6 or more for a baseline.", min=1, max=1000
    )
    save_baseline: str | None = option("Store the launches under this name.")
    force: bool = option("Replace a baseline of the same name.", False)
    device: str = option("auto, cpu or cuda:0.", "auto")
    baselines: Path = option(BASELINES_HELP, Path("results/baselines"))
    out: Path | None = option("With `history`: folder for a page with plots.")
    python: list[str] | None = option(PYTHON)
    as_json: bool = option(JSON, False, "--json")


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """Tell whether training became slower: A against B, launched now in turns, or a baseline.

    A and B are Python interpreters, git revisions, or values of an environment variable. Exit code
    1 means slower (with --strict also: cannot tell). `gate calibrate` measures this machine's own
    noise, false alarms and power.
    """

    what: str = argument("calibrate, or nothing to compare.", "[calibrate]", "")
    ab: tuple[str, str] | None = option("A B: interpreters, environments, or git revisions.")
    ab_env: list[str] | None = option("NAME=A,B: two values of a variable. Repeatable.")
    baseline: str | None = option("Compare with launches stored by `speed --save-baseline`.")
    against: str | None = option("With --baseline: a second stored baseline, instead of now.")
    stored: Path | None = option("Decide again from the folder of an earlier comparison.")
    suite: str | None = option(f"{SUITE_HELP} Default: small.")
    backends: str | None = option("See `list backends`. Default: torch,keras-tensorflow.")
    target: str | None = option(TARGET_HELP)
    max_slowdown: float | None = option(
        "Slowdown that does not matter, as a fraction. Default: 0.03."
    )
    budget: str | None = option(
        "Time for all launches: 90s, 20m, 2h. Default: 20m; of `calibrate`: 10m."
    )
    blocks: int | None = option("Blocks at the last look. Default: up to 40.", min=1, max=1000)
    launches: int | None = option("With --baseline: launches now.", min=1, max=1000)
    turns: bool = option(
        "On a GPU whose memory holds three launches: let them live side by side and take turns, as "
        "on a CPU.",
        False,
    )
    strict: bool = option("Exit with 1 also where nothing can be told.", False)
    confirm: bool = option(
        "With --baseline: rebuild its environment and run A against B, if suspicious.", False
    )
    explain: bool = option("Profile a launch of each side where B is slower or faster.", True)
    formats: str | None = option(
        "Also write md, junit, json, bmf or github, comma-separated.", flag="--format"
    )
    device: str = option("auto, cpu or cuda:0.", "auto")
    baselines: Path = option(BASELINES_HELP, Path("results/baselines"))
    out: Path | None = option("Folder of the launches. Default: results/gates/….")
    fresh: bool = option("Measure anew what an interrupted comparison has measured.", False)
    python: list[str] | None = option(PYTHON)
    as_json: bool = option(JSON, False, "--json")


@dataclass(frozen=True, kw_only=True)
class AdviseOptions:
    """Recommend a strategy for a data set: policy, network and framework, with cost and accuracy.

    Lists are comma-separated. Probes come first, then real trainings, as far as the budget goes.
    The test images take no part. Exit code 1 means that there is no recommendation, or that the
    project could not be written or trained.
    """

    dataset: str = argument("folder:PATH, photos, mnist5k or debian:NAME.", "DATASET", MISSING)
    budget: str | None = option("Time: 90s, 10m, 2h. Default: 10m.")
    budget_usd: float | None = option("Budget in dollars, with --price-per-hour.")
    price_per_hour: float | None = option("Price of this machine in dollars an hour.")
    backbones: str | None = option(
        "Networks to choose from. Default: those with pretrained weights here."
    )
    frameworks: str | None = option(
        "Backends to choose from; the first does the trials. Default: those installed."
    )
    max_parameters: int | None = option("Most parameters of the network.", min=1)
    max_infer_ms: float | None = option(
        "Longest inference time of an image in a batch, in milliseconds.", min=0.001
    )
    max_memory: str | None = option("Most memory of a training: 800MB, 4GB.")
    margin: float = option(
        "Difference in accuracy that does not matter, in percentage points.", 1.0, min=0, max=100
    )
    target: float | None = option(
        "Accuracy in percent; the answer says how many images it takes.", min=0.1, max=99.9
    )
    head: str = option("linear, dense:512,256 or flatten+dense:290.", "linear")
    epochs: int = option("Epochs of a full run.", 10, min=1)
    batch_size: int = option("Images in a training step.", 32, min=1)
    px: int | None = option(
        "Height and width of the input, in pixels. Default: 96 on a CPU, 224 on a GPU.", min=1
    )
    train_images: int | None = option("Number of training images. Default: all.", min=1)
    device: str = option("auto, cpu or cuda:0.", "auto")
    eject: Path | None = option(
        "New folder for a training script of the recommendation that needs no Thawbench."
    )
    train: bool = option(
        "Do the full run of the recommendation and save its model: within the budget if the run "
        "takes at most half of the budget, otherwise after it.",
        False,
    )
    dry_run: bool = option("Show the plan with its costs, and train nothing.", False)
    skip_unreadable: bool = option("Leave out images that cannot be read.", False)
    drop_duplicates: bool = option("Leave out images in two classes or two splits.", False)
    test_from: str | None = option("val or train:15%: source of missing test images.")
    group_by: str | None = option("Regular expression for paths: images that belong together.")
    max_pixels: int | None = option("Largest image, in pixels. Default: 178,956,970.", min=1)
    out: Path | None = option("Folder of the trials. Default: results/advice/….")
    python: list[str] | None = option(PYTHON)
    as_json: bool = option(JSON, False, "--json")


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check this machine; print the command that mends what does not work."""

    python: list[str] | None = option(PYTHON)
    as_json: bool = option(JSON, False, "--json")


def as_command(options: type[Any], run: Callable[[Any], None]) -> Callable[..., None]:
    """Return a function for Typer whose parameters are the options that a dataclass declares, with
    the shared ones in place of ``shared``; it calls ``run`` with that dataclass."""
    shared = shared_parameters(as_filters=options is ReportOptions)
    hints, parameters = get_type_hints(options), list[inspect.Parameter]()
    for own in fields(options):
        if own.name == "shared":
            parameters += shared
        else:
            default = inspect.Parameter.empty if own.default is MISSING else own.default
            annotation: Any = Annotated[(hints[own.name], own.metadata["typer"])]
            parameters.append(_parameter(own.name, default=default, annotation=annotation))

    def command(**given: Any) -> None:
        if "shared" in hints:
            given["shared"] = {option.name: given.pop(option.name) for option in shared}
        run(options(**given))

    # Typer would keep the line breaks of a paragraph.
    command.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(options.__doc__ or ""))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


class SharedOption(NamedTuple):
    """An option that sets a key of a suite in ``run`` and selects runs in ``report``."""

    field: str
    """Field of ``bench.runner.suite.Options``."""
    flag: str
    help: str
    """Help text in ``run``."""
    kind: type = str
    """int, float or str."""
    is_list: bool = True
    """True if ``run`` takes several values; ``report`` always does."""
    least: int | None = None

    @property
    def parameter(self) -> str:
        """The flag as a name in Python, and field of ``bench.report.selection.Filters``."""
        return self.flag.removeprefix("--").replace("-", "_")

    def parse(self, text: str | None) -> list[Any] | None:
        """Return the values of a list; None if the option was not given."""
        if self.field == "head":
            return heads(text)
        if self.field in ("datasets", "backbones"):
            return paths(names(text))
        if text is None or self.kind is str:
            return names(text)
        return numbers(self.flag, self.kind, text)


BACKBONES_HELP = "See `list backbones`; or torchvision:NAME, timm:NAME, module:FILE:FUNCTION."
TRAIN_IMAGES_HELP = "Number of training images. Default: the suite's."
MODE_HELP = "matched: same arithmetic in every framework. native: each framework's own."
TUNE_HELP = "lr: choose each run's learning rate on validation data."


def shared_options() -> list[SharedOption]:
    """Return all shared options; those in the middle are declared with ``Recipe``."""
    return [
        SharedOption("cases", "--cases", "Cases of the article, 1 to 4.", int),
        SharedOption(
            "datasets",
            "--datasets",
            "photos, mnist5k, debian:NAME, folder:PATH or rvl_cdip[:PATH].",
        ),
        SharedOption("backbones", "--backbones", BACKBONES_HELP),
        SharedOption("policies", "--policies", "See `list policies`."),
        SharedOption("backends", "--backends", "See `list backends`."),
        SharedOption("seeds", "--seeds", "Random seeds, such as 0,1,2.", int),
        SharedOption("train_images", "--train-images", TRAIN_IMAGES_HELP, int, False, least=1),
        *(
            SharedOption(d.name, d.option.flag, d.option.help, d.kind, d.option.is_list)
            for d in RECIPE_OPTIONS.values()
        ),
        SharedOption("mode", "--mode", MODE_HELP),
        SharedOption("tune", "--tune", TUNE_HELP, is_list=False),
    ]


def shared_parameters(*, as_filters: bool = False) -> list[inspect.Parameter]:
    """Return the shared options as parameters of a command; filters are lists of wanted values."""
    found = []
    for shared in shared_options():
        kind = str if as_filters or shared.is_list else shared.kind
        least = None if as_filters else shared.least
        declared = Option(shared.flag, help=FILTER if as_filters else shared.help, min=least)
        annotation: Any = Annotated[(kind | None, declared)]
        found.append(_parameter(shared.parameter, default=None, annotation=annotation))
    return found


def run_choices(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shared options of ``run``, parsed, by their fields in ``Options``."""
    values = {o.field: (o, given.get(o.parameter)) for o in shared_options()}
    return {name: o.parse(value) if o.is_list else value for name, (o, value) in values.items()}


def report_filters(given: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the shared options of ``report``, parsed, by their names in ``Filters``."""
    return {o.parameter: o.parse(given.get(o.parameter)) for o in shared_options()}


def file_rules(given: RunOptions | AdviseOptions) -> FileRules:
    """Return the rules for files of data sets; raise UserError for a wrong ``--test-from``."""
    from bench.data import FileRules

    rules = FileRules(
        skip_unreadable=given.skip_unreadable,
        drop_duplicates=given.drop_duplicates,
        group_by=given.group_by,
        test_from=None if given.test_from is None else _test_from(given.test_from),
    )
    return rules if given.max_pixels is None else replace(rules, max_pixels=given.max_pixels)


def _test_from(text: str) -> tuple[Literal["train", "val"], float]:
    if text == "val":
        return "val", 1.0
    match = re.fullmatch(r"train:(\d{1,2})%?", text)
    if match is None or not int(match[1]):
        raise UserError(f"--test-from: '{text}' is neither val nor a share such as train:15%.")
    return "train", int(match[1]) / 100


def interpreters(choices: Sequence[str] | None) -> Interpreters:
    """Return the interpreters of ``--python``; raise UserError if a backend or file is unknown."""
    from bench.catalog.backends import BACKENDS
    from bench.workers.process import Interpreters

    chosen = {}
    for choice in choices or ():
        backend, _, path = choice.partition("=")
        choose("backend in --python", backend, BACKENDS)
        interpreter = Path(os.path.expanduser(path))
        if not path or not interpreter.is_file():
            raise UserError(f"--python {choice}: '{path}' is not an interpreter.")
        chosen[backend] = interpreter.absolute()
    return Interpreters(chosen)


def names(text: str | None) -> list[str] | None:
    """Return the items of a comma-separated list, where a comma in a path is written as ``\\,``;
    raise UserError if there are none."""
    if text is None:
        return None
    parts = text.replace("\\,", "\0").split(",")
    found = [p.strip().replace("\0", ",") for p in parts if p.strip()]
    if not found:
        raise UserError("An empty list was given.", "Lists are comma-separated: a,b,c.")
    return list(dict.fromkeys(found))


def paths(found: list[str] | None) -> list[str] | None:
    """Join what a comma inside a path took apart: a piece that is no name of its own belongs to the
    path before it."""
    from bench.catalog.backbones import BACKBONES
    from bench.data.registry import EMBEDDED

    joined: list[str] = []
    for piece in found or ():
        stands_alone = ":" in piece.partition(".")[0] or piece in EMBEDDED or piece in BACKBONES
        continued = None if stands_alone or not joined else _continued(joined[-1], piece)
        if continued is None:
            joined.append(piece)
        else:
            joined[-1] = continued
    return joined if found is not None else None


def _continued(name: str, piece: str) -> str | None:
    """Return a name with a path and the piece behind its comma, None if they do not belong
    together: there is no such folder or file."""
    kind, _, path = name.partition(":")
    for comma in (",", ", "):
        whole = f"{path}{comma}{piece}"
        file = whole.rpartition(":")[0] if kind == "module" else whole
        if kind in ("folder", "rvl_cdip", "module") and Path(os.path.expanduser(file)).exists():
            return f"{kind}:{whole}"
    return None


def duration_s(flag: str, text: str) -> float:
    """Return the seconds of a time such as 90s, 20m, 1h30m or 2h; raise UserError if it is none."""
    number = r"(\d{1,9}(?:\.\d{1,6})?)"
    match = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip())
    parts = match.groups() if match else ()
    seconds = sum(float(n or 0) * unit for n, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds:
        raise UserError(
            f"{flag}: '{text[:MOST_LETTERS]}' is no time.", "Write, for example, 90s, 20m or 1h30m."
        )
    return seconds


def heads(text: str | None) -> list[str] | None:
    """Return heads, which may hold lists themselves: ``linear,dense:512,256`` is two."""
    parts = names(None if text is None else re.sub(r",(?=\s*\d)", r"\\,", text))
    return None if parts is None else [re.sub(r"\s", "", part) for part in parts]


def numbers(option: str, kind: type, text: str) -> list[Any]:
    """Return the numbers of a list, int or float; raise UserError for anything else, and for whole
    numbers below 0."""
    found = []
    for name in names(text) or ():
        try:
            if kind is int and not (name.isascii() and name.isdigit()):
                raise ValueError
            value = kind(name)
            if not math.isfinite(value):
                raise ValueError
            found.append(value)
        except (ValueError, OverflowError) as error:  # OverflowError: too long to compare
            what = "a whole number of 0 or more" if kind is int else "a number"
            raise UserError(f"{option}: '{name[:MOST_LETTERS]}' is not {what}.") from error
    return found
