"""Write the parity table of every network: ``python -m tools.parity_zoo results/parity.md``.

Results are kept beside the table as JSON after each network, so that the command can be stopped;
called again, it continues with the networks that are missing.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.catalog.backends import EXPORTER
from bench.cli.progress import ProofLines
from bench.cli.run_clock import WorkClock, duration
from bench.errors import Unavailable, UserError
from bench.network.backbones import backbones
from bench.network.blueprint import STATE_ROLES, Blueprint
from bench.network.blueprint_files import blueprint_path
from bench.parity import scheduler
from bench.parity.model import PARTS, PairProof, Part
from bench.parity.plan import DTYPES, Question, environments_of, subject_of
from bench.parity.run import FLOORS_FROM, prove
from bench.parity.tolerances import LEVELS
from bench.report.markdown import markdown
from bench.spec.run import Precision
from bench.storage.cache import cache_root
from bench.storage.code_digest import digest_of_rooms
from bench.storage.results import write_json
from bench.workers.process import Interpreters, Stopped, ask
from bench.workers.tasks import ModelsTask

BACKENDS = ("torch", "keras-tensorflow")
DEVICE = "cpu"
LARGEST = 100_000_000
"""Number of parameters up to which a network is trained for ten steps in float64; of larger ones
only the forward pass is compared, in float32."""
MEMORY_BYTES = scheduler.MAX_BYTES // 2
"""Memory of a worker, so that two run at a time. More than 100 million parameters, in float32 and
without training, need no more than 100 million in float64 with training."""
INPUT_PX = {"torchvision:inception_v3": 139}
"""Input sizes of networks that are chaotic at their smallest size: the last stage of Inception v3
has one pixel at 75 px."""
PERTURBATIONS = 1
"""The command ``parity`` takes the worst of three."""
TIMM = (
    "timm:resnet18", "timm:tf_efficientnet_b0", "timm:mobilenetv3_small_050", "timm:convnext_atto",
    "timm:regnety_004", "timm:densenet121", "timm:vit_tiny_patch16_224",
)  # fmt: skip
"""Examples of timm, one per family."""
ZooEntry = dict[str, Any]


def names(interpreters: Interpreters) -> list[str]:
    """Return the names of all networks of torchvision, and of timm's examples.

    Raises:
        Unavailable: The exporter's packages are not installed.
    """
    answer = ask(EXPORTER, ModelsTask(), interpreters, "listing torchvision's networks")
    return [*answer.models, *TIMM]


def measure(name: str, interpreters: Interpreters) -> ZooEntry:
    """Prove one network and return its row of the table."""
    question = _question(name, "fp64", interpreters)
    row: ZooEntry = {
        "model": name,
        "environments": [e.environment_id for e in environments_of(question)],
        "harness": digest_of_rooms("proof"),
        "notes": [],
        **dict.fromkeys(("parameters", "pair", "refused", "failed")),
    }
    try:
        subject = subject_of(name, "fp64", question)
        (folder,) = {blueprint_path(item.blueprint) for item in subject.items.values()}
        blueprint = Blueprint.load(folder)
        row["parameters"] = _parameters(blueprint)
        row["notes"] = list(blueprint.notes)
        is_large = row["parameters"] > LARGEST
        pair = _forward(name, interpreters, row["notes"]) if is_large else _prove(question)
        row["pair"] = pair.model_dump(mode="json")
        shutil.rmtree(folder)  # it is not needed again
    except UserError as error:
        row["refused"] = str(error)
    except Unavailable as error:
        row["failed"] = str(error)
    except Stopped:
        raise
    except Exception as error:  # other networks can still be measured
        traceback.print_exc()
        row["failed"] = f"{type(error).__name__}: {error}"
    return row


def _forward(name: str, interpreters: Interpreters, notes: list[str]) -> PairProof:
    """Prove the forward pass alone: in float32, or in float64 if float32 is inconclusive."""
    pair = _prove(_question(name, "fp32", interpreters, ("forward",)))
    noisy = [x for x in pair.levels if not x.passed]
    if not noisy or any(x.differs for x in noisy):
        return pair
    precise = _prove(_question(name, "fp64", interpreters, ("forward",)))
    if not precise.levels:  # the worker ran out of memory
        return pair
    notes.append(f"float32 is inconclusive: noise floor of {noisy[0].name} {noisy[0].floor:.1e}")
    return precise


def _prove(question: Question) -> PairProof:
    subject = subject_of(question.backbones[0], question.precisions[0], question)
    (pair,) = prove(subject, question, ProofLines(1.0))
    return pair


def _question(
    name: str, precision: Precision, interpreters: Interpreters, parts: tuple[Part, ...] = PARTS
) -> Question:
    return Question(
        backbones=(name,),
        policies=("retrain_all",),
        # Without steps SGD, which has fewer moments: AdamW's of 600 million parameters are 5 GB.
        optimizers=("adamw",) if "steps" in parts else ("sgd",),
        precisions=(precision,),
        backends=BACKENDS,
        head="original",
        px=INPUT_PX.get(name),
        device=DEVICE,
        interpreters=interpreters,
        cache=cache_root(),
        parts=parts,
        perturbations=PERTURBATIONS,
        threads=scheduler.threads_per_worker(scheduler.parallel_jobs(DEVICE, scheduler.MAX_JOBS)),
    )


def _parameters(blueprint: Blueprint) -> int:
    state = {t for _, role, t in blueprint.named_tensors() if role in STATE_ROLES}
    return sum(math.prod(s) for tensor, s in blueprint.shapes.items() if tensor not in state)


def table(rows: Sequence[ZooEntry]) -> str:
    """Return the rows as a Markdown table, with a line that counts the verdicts."""
    counted = Counter(verdict(row) for row in rows)
    verdicts = ", ".join(f"{counted[word]} {word}" for word in VERDICTS if counted[word])
    headings = ["model", "parameters", "px", "dtype", "logits", "gradients", "ten losses",
                "floor", "loss fell", "parity", "remarks"]  # fmt: skip
    aligned = ["left", "right", "right", "left", *["right"] * 5, "left", "left"]
    lines = tabulate(map(_cells, rows), headings, "pipe", disable_numparse=True, colalign=aligned)
    return f"{len(rows)} networks: {verdicts}.\n\n{lines}"


def _cells(row: ZooEntry) -> list[str]:
    count = "–" if row["parameters"] is None else f"{row['parameters']:,}"
    if row["pair"] is None:
        words = markdown((row["refused"] or row["failed"]).partition("\n")[0])
        return [row["model"], count, *["–"] * 7, verdict(row), words]
    pair = PairProof.model_validate(row["pair"])
    levels = {level.name: level for level in pair.levels}
    wanted = [levels.get(name) for name in ("logits", "gradients", "losses")]
    figures = [_number(level.value if level else None) for level in wanted]
    floor = _number(wanted[-1].floor if wanted[-1] else None)
    fell = "–" if pair.loss_fall is None else f"{pair.loss_fall:.0%}"
    weights = [] if pair.weights == "random" else [f"{pair.weights} weights"]
    remarks = [*weights, *row["notes"], *([pair.reason] if pair.reason else [])]
    return [row["model"], count, str(pair.px), pair.dtype, *figures, floor, fell, verdict(row),
            markdown("; ".join(remarks))]  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value else "0"


INTRODUCTION = """# Parity of {backends}

Written by `make parity-zoo` (`python -m tools.parity_zoo results/parity.md`). Random weights with
calibrated BatchNorms (pretrained weights where they are installed, see the remarks), {dtype}, the
whole network trained with AdamW on one fixed batch, with a learning rate that falls every step.
Figures are largest relative differences; the floor is how far the ten losses of {floors} alone move
when every weight is perturbed by one last bit. For networks of more than {largest:,} parameters
only the forward pass is compared, in float32. See docs/parity.md for what is compared.

"""


def main(path: Path) -> None:
    """Measure the missing networks and write the table after each; then retry those whose worker
    died, one at a time, since two large ones may need more memory than there is."""
    interpreters = Interpreters({})
    wanted = names(interpreters)
    here = [e.environment_id for e in environments_of(_question("vgg16", "fp64", interpreters))]
    made_by = (here, digest_of_rooms("proof"))
    done = {
        row["model"]: row
        for row in _load(path.with_suffix(".json"))
        if row["model"] in wanted and (row["environments"], row.get("harness")) == made_by
    }
    for parallel in (scheduler.parallel_jobs(DEVICE, len(wanted)), 1):
        missing = [name for name in wanted if name not in done or _died(done[name])]
        entries = backbones(missing, interpreters)  # one worker describes them all
        missing.sort(key=lambda name: -entries[name].min_px)  # slow ones, such as ViTs, first
        jobs = [
            scheduler.Job(MEMORY_BYTES, partial(measure, name, interpreters)) for name in missing
        ]
        clock = WorkClock(float(len(missing)))
        for number, row in scheduler.run_jobs(jobs, parallel, scheduler.memory_limit_bytes()):
            done[missing[number]] = row
            clock.done += 1
            print(f"[{clock.done:.0f}/{len(missing)}, {duration(clock.left_s())} left] "
                  f"{missing[number]}: {verdict(row)}", file=sys.stderr, flush=True)  # fmt: skip
            _write(path, [done[name] for name in wanted if name in done], len(wanted))


def _died(row: ZooEntry) -> bool:
    """Return True if a worker ended without an answer."""
    return not row["refused"] and not (row["pair"] and row["pair"]["levels"])


def _write(path: Path, rows: list[ZooEntry], wanted: int) -> None:
    write_json(path.with_suffix(".json"), {"rows": rows})
    introduction = INTRODUCTION.format(
        backends=" and ".join(BACKENDS), dtype=DTYPES["fp64"], largest=LARGEST, floors=FLOORS_FROM
    )
    missing = wanted - len(rows)
    more = f"\n{missing} more are not measured yet: run `make parity-zoo`.\n" if missing else ""
    path.write_text(f"{introduction}{table(rows)}\n{more}", encoding="utf-8")


VERDICTS = ("shown", "shown (forward pass)", "not shown", "refused", "failed")


def verdict(row: ZooEntry) -> str:
    """Return the verdict on a row, one of ``VERDICTS``."""
    if row["pair"] is None:
        return "refused" if row["refused"] else "failed"
    pair = PairProof.model_validate(row["pair"])
    if not pair.passed:
        return "not shown"
    return "shown" if len(pair.levels) == len(LEVELS) else "shown (forward pass)"


def _load(path: Path) -> list[ZooEntry]:
    try:
        rows: list[ZooEntry] = json.loads(path.read_bytes())["rows"]
    except (OSError, ValueError, KeyError):
        return []
    return rows


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/parity.md"))
    except (UserError, Unavailable) as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nstopped: results so far are kept; to continue, run the same command again")
