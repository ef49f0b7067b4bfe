"""Check the project on a machine with a GPU, in a few minutes, by one command.

``python -m tools.gpu_check`` runs every step in a process of its own, each with a time limit, and
rewrites ``OUT/check.json`` after each, so that a kill loses little. On a machine without a GPU,
``--device cpu --small`` goes through the same code. docs/gpu.md says what the steps mean.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.catalog.backends import BACKENDS, EXPORTER
from bench.runner.devices import devices_seen
from bench.storage.cache import CACHE_VARIABLE
from bench.system import project_root
from bench.workers.process import Interpreters
from tools.gpu_steps.common import (
    DEADLINE_VARIABLE,
    FAILED,
    Findings,
    StepOptions,
    findings_file,
    network,
    save,
    say,
)

LEAST_S = 12
"""Time that must be left to begin a step."""
MISSING = (
    "import sys; from importlib.util import find_spec; "
    "print(*(name for name in sys.argv[1:] if find_spec(name) is None))"
)
"""Program that prints those of the named packages that cannot be imported."""
NO_TIME: Findings = {"left_out": "no time"}
SAMPLED = "timestamp,clocks.sm,power.draw,temperature.gpu,utilization.gpu,memory.used"
SAMPLE_MS = 500
MOST_LOGGED = 20_000
CASES = "bf16:256,bf16:64,tf32:64,fp32:64,bf16:64:compiled,tf32:256,fp32:256"
JAX_CASES = "bf16:64,bf16:256,fp32:64,tf32:64,tf32:256,fp32:256"
SMALL_CASES = "bf16:4,fp32:4"
GATE_FIELDS = ("name", "verdict", "ratio", "interval", "cycles_ratio", "detectable")
SMALL_RUN = ("--datasets", "photos", "--backbones", "squeezenet1_1", "--weights", "random",
             "--px", "64", "--epochs", "2")  # fmt: skip

MODULES = {
    "versions": "machine", "limit": "limits", "feed": "feed", "speed": "speed",
    "by-hand": "by_hand", "causes": "causes", "full-memory": "full_memory",
}  # fmt: skip
"""Step that is a function → its module in ``tools.gpu_steps``."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Step:
    """A step of the check: a command of the project, or a function of ``tools.gpu_steps``."""

    name: str
    most_s: float
    """Time after which it is ended."""
    arguments: tuple[str, ...]
    """Arguments of ``run_bench.py``; or, for a function, its name and options."""
    is_function: bool = True
    backend: str = "torch"
    """Backend whose environment variables it needs."""


@dataclass
class Check:
    """All steps of one call, and what they found."""

    out: Path
    work: Path
    device: str
    small: bool
    deadline: float
    slow: float
    found: dict[str, Findings] = field(default_factory=dict)

    def steps(self) -> list[Step]:
        """Return the steps in order: what is wanted most comes first."""
        cases = SMALL_CASES if self.small else CASES
        jax_cases = SMALL_CASES if self.small else JAX_CASES
        on = ("--device", self.device, "--json")
        quick: tuple[str, ...] = ("--suite", "quick")
        if self.small:
            quick = (*SMALL_RUN, "--policies", "freeze_all,fine_tune_all")
        mine = f"module:{project_root() / 'examples' / 'my_net.py'}:build"
        proved = (mine,) if self.small else (mine, "squeezenet1_1")
        precisions = "fp32,bf16" if self.device == "cpu" else "fp32,tf32,bf16,fp16"
        both = ("--policies", "fine_tune_all,freeze_all")
        step_file = project_root() / "tools" / "gpu_steps" / "own_step.py"
        setting = "OMP_NUM_THREADS=1,2" if self.device == "cpu" else "CUDA_LAUNCH_BLOCKING=1,0"
        suite, baselines = "smallest" if self.small else "small", str(self.work / "baselines")
        stored = ("--baselines", baselines, *on)

        def timed(backend: str, most_s: float, chosen: str, profiled: int) -> Step:
            options = ("--backend", backend, "--cases", chosen)
            profile = ("--profiled", chosen.split(",")[profiled])
            return Step(f"speed-{backend}", most_s, ("speed", *options, *profile), backend=backend)

        def run(name: str, most_s: float, *arguments: str) -> Step:
            folder = str(self.work / "runs" / name)
            return Step(name, most_s, ("run", *arguments, *on, "--out", folder), False)

        def gate(name: str, most_s: float, *arguments: str) -> Step:
            own = ("gate", "--ab-env", setting, "--target", f"{step_file}:make", "--budget", "30m")
            folder = str(self.work / "runs" / name)
            return Step(name, most_s, (*own, *arguments, *on, "--out", folder), False)

        def full(backend: str, most_s: float) -> Step:
            name = f"full-memory-{backend}"
            return Step(name, most_s, ("full-memory", "--backend", backend), backend=backend)

        return [
            Step("versions", 90, ("versions",)),
            Step("prepare", 60, ("prepare",)),
            Step("limit", 90, ("limit",)),
            Step("feed", 40, ("feed",)),
            Step("doctor", 110, ("doctor", "--json"), False),
            timed("torch", 150, cases, 0),
            run("quick", 150, *quick, "--backends", "torch"),
            Step("by-hand", 130, ("by-hand",)),
            timed("keras-torch", 120, cases, 1),
            Step(
                "parity", 130,
                ("parity", *proved, "--policy", "retrain_all", "--optimizer", "sgd",
                 "--backends", "torch,keras-torch,keras-jax", *on), False,
            ),
            timed("keras-jax", 200, jax_cases, 0),
            timed("keras-tensorflow", 90, cases, 0),
            gate("gate", 200, "--turns", "--blocks", "6"),
            Step("causes", 130, ("causes",)),
            full("torch", 50),
            full("keras-torch", 30),
            full("keras-jax", 45),
            full("keras-tensorflow", 30),
            run("mixed", 110, *SMALL_RUN, *both, "--precision", precisions,
                "--backends", "torch,keras-torch"),
            run("compiled", 110, *SMALL_RUN, *both, "--compile", "plain,compiled",
                "--backends", "torch,keras-torch,keras-jax"),
            Step(
                "baseline", 130,
                ("speed", "--suite", suite, "--backends", "torch", "--launches", "3",
                 "--save-baseline", "check", "--force", *stored), False,
            ),
            gate("gate-alone", 330, "--blocks", "3"),
            Step("gate-baseline", 130, ("gate", "--baseline", "check", *stored), False),
        ]  # fmt: skip

    def run(self, step: Step) -> None:
        """Do a step in a process of its own; keep what it found, or how it ended."""
        most_s = min(step.most_s * self.slow, self.deadline - time.time() - 3)
        if most_s < LEAST_S:
            self.found[step.name] = dict(NO_TIME)
            say(f"---- {step.name}: left out, no time")
            return
        say(f"---- {step.name}")
        if step.is_function and (missing := _missing(step.backend)):
            self.found[step.name] = {"left_out": f"{', '.join(missing)} not installed"}
            say(f"     {outcome(self.found[step.name])}")
            return
        if step.is_function:
            own = ("--device", self.device, "--work", str(self.work))
            small = ("--small",) if self.small else ()
            python = str(Interpreters({}).of(step.backend))
            command = [python, "-m", "tools.gpu_check", *step.arguments, *own, *small]
        else:
            command = [sys.executable, str(project_root() / "run_bench.py"), *step.arguments]
        part = findings_file(self.work, step.name)
        part.unlink(missing_ok=True)
        began = time.time()
        code, said = self._process(step, command, most_s)
        answer: Findings = {"code": code, "s": round(time.time() - began, 1)}
        if part.exists():
            answer["found"] = json.loads(part.read_text())
        elif not step.is_function:
            try:
                answer["found"] = json.loads(said)
            except ValueError:
                answer["said"] = said[-2000:]
        self.found[step.name] = answer
        say(f"     {outcome(answer)}")

    def _process(self, step: Step, command: list[str], most_s: float) -> tuple[int | str, str]:
        """Return the exit code, or why it was ended, and the standard output."""
        log, printed = self.out / "log.txt", self.work / f"{step.name}.stdout"
        own = dict(os.environ)  # of commands, which set what their workers need
        if step.is_function:
            own = BACKENDS[step.backend].environment(os.environ, self.device)
        environment = {
            **own,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1",
            DEADLINE_VARIABLE: str(time.time() + most_s),
        }  # fmt: skip
        with log.open("ab") as errors, printed.open("wb") as stdout:
            errors.write(f"\n======== {step.name}: {' '.join(command)}\n".encode())
            errors.flush()
            process = subprocess.Popen(
                command, stdout=stdout, stderr=errors, env=environment, cwd=project_root(),
                start_new_session=True,
            )  # fmt: skip
            code: int | str
            try:
                code = process.wait(most_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = f"ended after {most_s:.0f} s"
        said = printed.read_text(errors="replace")
        with log.open("a") as file:
            file.write(said[-MOST_LOGGED:])
        return code, said

    def is_whole(self) -> bool:
        """Return True if every step was done and found all that it looked for."""
        return all(is_ok(answer) for answer in self.found.values())

    def last_words(self) -> str:
        """Return where the findings are, and the command that does what is missing."""
        missing = [name for name, answer in self.found.items() if answer == NO_TIME]
        done = [answer for answer in self.found.values() if "left_out" not in answer]
        good = sum(map(is_ok, done))
        words = f"{good} of {len(done)} steps are ok; findings: {self.out / 'check.json'}"
        if missing:
            most_s = sum(step.most_s for step in self.steps() if step.name in missing)
            small = " --small" if self.small else ""
            words += (
                f"\nleft out for lack of time: python -m tools.gpu_check all --device {self.device}"
                f"{small} --seconds {most_s * self.slow:.0f} --steps {','.join(missing)}"
            )
        return words

    def write(self, began: str) -> None:
        """Write what was found so far."""
        document = {"began": began, "device": self.device, "steps": self.found}
        (self.out / "check.json").write_text(json.dumps(document, indent=1))

    def pack(self) -> None:
        """Put the results of runs, the logs of workers and the profile beside the findings."""
        logs = Path(os.environ[CACHE_VARIABLE]) / "logs"
        with tarfile.open(self.out / "runs.tgz", "w:gz") as archive:
            for folder in (self.work / "runs", self.work / "baselines", logs):
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.suffix in (".json", ".jsonl", ".txt", ".md"):
                        archive.add(path, str(path.relative_to(folder.parent)))
        if (self.work / "profile.txt").exists():
            shutil.copy(self.work / "profile.txt", self.out / "profile.txt")


@contextmanager
def _sampled(out: Path) -> Iterator[None]:
    """Write clocks, power and temperature into gpu.csv twice a second, where nvidia-smi is."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield
        return
    query = [f"--query-gpu={SAMPLED}", "--format=csv,noheader,nounits", "-lms", str(SAMPLE_MS)]
    with (out / "gpu.csv").open("w") as sink:
        process = subprocess.Popen([program, *query], stdout=sink, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()


Device = Annotated[str, typer.Option(help="cuda:N, or cpu for a dry run.")]
Small = Annotated[bool, typer.Option("--small", help="Small networks and few repetitions.")]
Work = Annotated[Path, typer.Option(help="Folder for scratch.")]


@app.command("all")
def check_all(
    device: Device = "cuda:0",
    small: Small = False,
    out: Annotated[Path, typer.Option(help="Folder for the findings.")] = Path("results/gpu"),
    work: Work = Path("/tmp/gpu_check"),
    seconds: Annotated[float, typer.Option(help="Time for all steps.")] = 480.0,
    steps: Annotated[str, typer.Option(help="Names of steps, comma-separated.")] = "",
    slow: Annotated[float, typer.Option(help="Factor on the time limit of each step.")] = 1.0,
) -> None:
    """Run all steps, or those that are named."""
    out, work = out.resolve(), work.resolve()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(CACHE_VARIABLE, str(work / "cache"))
    check = Check(out, work, device, small, time.time() + seconds, slow)
    began, wanted = time.strftime("%FT%TZ", time.gmtime()), set(filter(None, steps.split(",")))
    if unknown := wanted - {step.name for step in check.steps()}:
        known = ", ".join(step.name for step in check.steps())
        raise typer.BadParameter(f"no step {', '.join(sorted(unknown))}; there are {known}")
    if problem := _unseen(device):
        raise typer.BadParameter(
            f"{problem}; a dry run on the processor: --device cpu --small", param_hint="--device"
        )
    with _sampled(out):
        for step in check.steps():
            if not wanted or step.name in wanted:
                check.run(step)
                check.write(began)
    check.pack()
    say(table(check.found))
    say(check.last_words())
    if not check.is_whole():
        raise typer.Exit(1)


def _unseen(device: str) -> str | None:
    """Return why PyTorch, which most steps need, does not see a device; None if it does."""
    if device == "cpu":
        return None
    seen = devices_seen(EXPORTER, Interpreters({}))
    if isinstance(seen, str):
        return seen
    if device in seen.devices:
        return None
    why = f" ({seen.blind_because})" if seen.blind_because else ""
    return f"there is no {device} here: {EXPORTER} sees only {', '.join(seen.devices)}{why}"


def _missing(backend: str) -> list[str]:
    """Return the packages that a backend's interpreter lacks."""
    python = str(Interpreters({}).of(backend))
    done = subprocess.run(
        [python, "-c", MISSING, *BACKENDS[backend].packages], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.split()


def failures(found: object) -> list[str]:
    """Return the exceptions among findings (``tools.gpu_steps.common.noted``)."""
    if isinstance(found, dict):
        return [text for value in found.values() for text in failures(value)]
    if isinstance(found, list):
        return [text for value in found for text in failures(value)]
    return [found] if isinstance(found, str) and found.startswith(FAILED) else []


def is_ok(answer: Findings) -> bool:
    """Return True if a step was done and nothing in it failed."""
    return answer.get("code") == 0 and not failures(answer.get("found"))


def outcome(answer: Findings) -> str:
    """Return in words how a step ended."""
    if "left_out" in answer:
        return f"left out: {answer['left_out']}"
    if is_ok(answer):
        return f"ok after {answer['s']} s"
    failed = failures(answer.get("found"))
    why = failed[0].splitlines()[0][:150] if failed else f"exit code {answer['code']}"
    why = why if isinstance(answer["code"], int) else answer["code"]
    return f"failed after {answer['s']} s: {why}; see log.txt"


@app.command("table")
def print_table(folders: list[Path]) -> None:
    """Print the table of earlier calls again, from their folders; of a step that several calls did
    the last."""
    steps: dict[str, Findings] = {}
    for folder in folders:
        found = json.loads((folder / "check.json").read_text())["steps"]
        steps |= {name: one for name, one in found.items() if one != NO_TIME or name not in steps}
    say(table(steps))


def table(steps: dict[str, Findings]) -> str:
    """Return the findings in short: rates, limits, and how each step ended."""

    def found(name: str) -> Findings:
        value = steps.get(name, {}).get("found")
        return value if isinstance(value, dict) else {}

    lines = ["", "images/s of training ResNet50 at 224 px: each step waited for / queued / epochs "
             "with their input"]  # fmt: skip
    for name in (f"speed-{backend}" for backend in BACKENDS):
        for case, one in found(name).get("cases", {}).items():
            if isinstance(one, dict) and "images_per_s" in one:
                rate = one["images_per_s"]
                lines.append(
                    f"  {name.removeprefix('speed-')} {case}: {rate['step']:.0f} / "
                    f"{rate['pipelined']:.0f} / {rate['epoch']:.0f}, queue "
                    f"{(one['queue_s'] or 0) * 1e3:.1f} ms, MFU {one['mfu']:.2f}"
                )
    for case, one in found("by-hand").get("steps", {}).items():
        if isinstance(one, dict) and "images_per_s" in one:
            lines.append(f"  by hand {case}: {one['images_per_s']:.0f}")
    for key, value in found("limit").items():
        if isinstance(value, float):
            lines.append(f"  limit {key}: {value:.3g}")
        elif isinstance(value, dict) and "images_per_s_of_convolutions_alone" in value:
            lines.append(f"  limit {key}: {value['images_per_s_of_convolutions_alone']:.0f}")
    for rate in found("feed").get("rates", []):
        lines.append(f"  feed {', '.join(f'{k} {v}' for k, v in rate.items())}")
    for name in ("quick", "mixed", "compiled"):
        for row in found(name).get("rows", []):
            fields = ("backbone", "policy", "backend", "precision", "compile", "status",
                      "test_top1", "train_images_per_s", "peak_device_bytes")  # fmt: skip
            lines.append(f"  {name}: {', '.join(str(row.get(f)) for f in fields)}")
    for pair in found("parity").get("pairs", []):
        lines.append(f"  parity {pair['backbone']} {pair['backends'][1]}: {pair['passed']}")
    for name in ("gate", "gate-alone", "gate-baseline"):
        for one in found(name).get("benchmarks", []):
            words = [f"{key} {one.get(key)}" for key in GATE_FIELDS]
            lines.append(f"  {name}: {', '.join(words)}")
    for one in found("causes").get("causes", []):
        lines.append(f"  causes: {one['culprit']}, {json.dumps(one['parts'])[:300]}")
    for name, step in steps.items():
        for one in found(name).get("tries", []) if name.startswith("full-memory") else ():
            lines.append(f"  {name}: {json.dumps(one)[:200]}")
        lines.append(f"{name}: {outcome(step)}")
    return "\n".join(lines)


def _function(name: str) -> Callable[[StepOptions], Findings]:
    """Return the function of a step; frameworks are imported in its process alone."""
    if name == "prepare":
        return prepare
    module = importlib.import_module(f"tools.gpu_steps.{MODULES[name]}")
    found: Callable[[StepOptions], Findings] = getattr(module, name.replace("-", "_"))
    return found


def prepare(options: StepOptions) -> Findings:
    """Export the network that other steps train."""
    began = time.perf_counter()
    network(options)
    return {"export_s": time.perf_counter() - began}


def _add_step(name: str) -> None:
    @app.command(name, hidden=True)
    def step(
        device: Device = "cuda:0", small: Small = False, work: Work = Path("/tmp/gpu_check"),
        backend: str = "torch", cases: str = "", profiled: str = "",
    ) -> None:  # fmt: skip
        sys.setrecursionlimit(10_000)
        chosen = tuple(filter(None, cases.split(",")))
        options = StepOptions(device, small, work, backend, chosen, profiled)
        has_backend = name in ("speed", "full-memory")
        save(options, f"{name}-{backend}" if has_backend else name, _function(name)(options))


for _name in ("prepare", *MODULES):
    _add_step(_name)


if __name__ == "__main__":
    app()
