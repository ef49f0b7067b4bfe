"""Run peers and Thawbench in turn on one folder of JPEG images: ``make peers``.

Without --whole: measure the fit of a frozen network from a cold start. A peer's ``fit_s`` covers
decoding, building, compilation, training and validation; process start and imports are ``start_s``.
Thawbench's ``fit_and_packing_s`` covers the same: packing, setup and fit, including the values of
the frozen part. It leaves out the export of the network to a Blueprint; ``whole_s``, the wall clock
of a command with an empty cache, includes it. All programs find the files in the page cache.

With --whole: measure images/s of full fine-tuning, in windows of whole steps after warm-up.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.catalog.backbones import BACKBONES
from bench.cli.main import USAGE_ERROR
from bench.data import SplitSizes
from bench.data.photos import PHOTO_CLASSES
from bench.errors import Unavailable, UserError, choose
from bench.network.backbones import check_px
from bench.storage.results import write_json
from bench.system import cores, machine_bytes, processor, project_root
from tests.peers import programs
from tests.peers.figures import THAWBENCH, Measured, frozen_summary, render, whole_summary
from tests.peers.photos_folder import JPEG_PX, JPEG_QUALITY, write_folder
from tests.peers.programs import BACKENDS, PEERS, Experiment, Peer

FROZEN = {"images": 1000, "px": 96, "epochs": 10, "batch_size": 32}
WHOLE = {"images": 320, "px": 224, "epochs": 2, "batch_size": 16}
"""Default options without and with --whole."""
FROZEN_BACKBONES = ("efficientnet_lite0", "vgg16")
WHOLE_BACKBONES = ("resnet50", "efficientnet_lite0")
KNOWN = ("efficientnet_lite0", "resnet50", "vgg16")
NAMES = tuple(p.name for p in PEERS if not p.is_variant)
HELD_OUT = {False: (180, 540), True: (len(PHOTO_CLASSES), len(PHOTO_CLASSES))}
"""--whole → validation and test images."""

AT_LEAST = len(PHOTO_CLASSES)
Images = Annotated[
    int | None, typer.Option(min=AT_LEAST, help="Number of images; every class needs one.")
]


def compare(
    images: Images = None,
    px: Annotated[int | None, typer.Option(min=32, help="Height and width of the input.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step.")] = None,
    val_images: Images = None,
    test_images: Images = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each runs every program once.")] = 3,
    backbones: Annotated[str | None, typer.Option(help=f"Some of {', '.join(KNOWN)}.")] = None,
    peers: Annotated[str | None, typer.Option(help=f"Some of {', '.join(NAMES)}.")] = None,
    backends: Annotated[str | None, typer.Option(help=f"Some of {', '.join(BACKENDS)}.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Train the whole network and measure images/s.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Time limit of one program, in seconds.")] = 3600.0,
    device: Annotated[str, typer.Option(help="cpu, or cuda:0 for the first GPU.")] = "cpu",
    python: Annotated[
        list[str] | None, typer.Option(help="ENVIRONMENT=PATH: interpreter of a peer. Repeatable.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="File for the results, written after each program."),
    ] = None,
) -> None:
    """Compare Thawbench with common training programs. Lists are comma-separated."""
    choose("device", device, ["cpu", "cuda:0"])
    defaults = WHOLE if whole else FROZEN
    given = {"images": images, "px": px, "epochs": epochs, "batch_size": batch_size}
    options = {key: value or defaults[key] for key, value in given.items()}
    networks = _chosen("backbone", backbones, KNOWN, WHOLE_BACKBONES if whole else FROZEN_BACKBONES)
    names = _chosen("peer", peers, NAMES)
    # The name of a variant begins with the name of its peer.
    chosen = [p for p in PEERS if p.name.split(",")[0] in names and not (whole and p.is_variant)]
    own = _chosen("backend", backends, BACKENDS)
    for name in networks:
        check_px(name, BACKBONES[name], options["px"])
    pythons = _interpreters(python or [])
    found = {p.environment: programs.interpreter(p.environment, pythons) for p in chosen}
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
    val, test = HELD_OUT[whole]
    sizes = SplitSizes(options["images"], val_images or val, test_images or test)
    document = {
        **_machine(),
        "asked": {**options, "val_images": sizes.val, "test_images": sizes.test, "rounds": rounds,
                  "whole": whole, "jpeg_px": JPEG_PX, "jpeg_quality": JPEG_QUALITY},
        "measured": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        write_folder(folder, sizes)
        experiment = Experiment(
            folder, options["px"], options["epochs"], options["batch_size"], whole, timeout, device
        )
        document["recipe"] = programs.recipe_of(experiment)
        for number in range(rounds):
            for backbone in networks:
                for measured in _round(number, backbone, experiment, chosen, own, found):
                    document["measured"].append(measured)
                    if json_file is not None:
                        write_json(json_file, _compact(document))
        document["summary"] = (whole_summary if whole else frozen_summary)(document["measured"])
    if json_file is not None:
        write_json(json_file, _compact(document))
    print(render(document["summary"]))


def _round(
    number: int,
    backbone: str,
    experiment: Experiment,
    peers: list[Peer],
    backends: list[str],
    pythons: dict[str, Path],
) -> Iterator[Measured]:
    """Run every program once and yield its results; every other round goes in reverse order, so
    that a machine that heats up favours no program."""
    pretrained = not experiment.whole and programs.weights_of(backbone) is not None
    turns: list[Peer | str] = [
        *(p for p in peers if not p.is_variant or (pretrained and number == 0)),
        *backends,
    ]
    for turn in turns if number % 2 == 0 else reversed(turns):
        if isinstance(turn, Peer):
            python = pythons[turn.environment]
            found = programs.run_peer(turn, backbone, experiment, python)
        else:
            with tempfile.TemporaryDirectory(prefix="peers-thawbench-") as scratch:
                found = programs.run_thawbench(turn, backbone, experiment, Path(scratch))
            found["weights"] = "packaged" if pretrained else "random"
        name = turn.name if isinstance(turn, Peer) else f"{THAWBENCH}{turn}"
        if experiment.whole and found["train_images_per_s"] is None:
            raise UserError(
                f"{name}, {backbone}: too few steps to measure images/s.",
                "Use more: --images, --epochs.",
            )
        yield {**found, "round": number, "backbone": backbone, "program": name}
        print(f"round {number + 1}: {backbone}, {name}: {found['whole_s']:.1f} s", file=sys.stderr)


def _chosen(
    kind: str, text: str | None, known: tuple[str, ...], default: tuple[str, ...] = ()
) -> list[str]:
    if text is None:
        return list(default or known)
    return [choose(kind, name.strip(), known) for name in text.split(",")]


def _interpreters(choices: list[str]) -> dict[str, Path]:
    chosen = {}
    for choice in choices:
        name, _, path = choice.partition("=")
        choose("environment in --python", name, dict.fromkeys(p.environment for p in PEERS))
        chosen[name] = Path(path).expanduser().absolute()
    return chosen


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "machine": {
            "processor": processor(),
            "cores": cores(),
            "memory_bytes": machine_bytes(),
        },
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=project_root(), check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _compact(document: dict[str, Any]) -> dict[str, Any]:
    """Shorten lists to one line each: ``correct`` as a string of 1 and 0, rates to four digits."""
    rows = []
    for measured in document["measured"]:
        row = {k: v for k, v in measured.items() if k != "train_images_per_s_windows"}
        if "correct" in row:
            row["correct"] = "".join(map(str, row["correct"]))
        windows = measured.get("train_images_per_s_windows")
        if windows:
            row["train_images_per_s_windows"] = " ".join(f"{w:.4g}" for w in windows)
        rows.append(row)
    return {**document, "measured": rows}


def main() -> None:
    """Run the command; a mistake of the user ends with a message and exit code 2."""
    try:
        typer.run(compare)
    except (UserError, Unavailable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
