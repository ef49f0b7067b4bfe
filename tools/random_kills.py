"""Kill a command at random moments, and check that nothing is lost, torn or orphaned.

``python -m tools.random_kills FOLDER [KILLS [SEED]]`` starts one ``run`` again and again below
FOLDER and ends it by SIGKILL, SIGTERM or Ctrl-C after a random time. A result, once written, must
stay as it is; every file must be whole; no worker may live on; and in the end nothing half-written
is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.storage.results import Store
from bench.system import project_root

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST_S = 12.0
"""Longest time until a kill, in seconds."""
ORPHANS_S = 5.0
"""Time that workers have to end, in seconds."""
RUNS = 12
COMMAND = (
    "run", "--datasets", "photos", "--train-images", "36", "--backbones", "squeezenet1_1",
    "--policies", "freeze_all", "--px", "32", "--epochs", "1", "--seeds", "0,1,2,3,4,5",
)  # fmt: skip


def main(folder: Path, kills: int = 100, seed: int = 0) -> int:
    """Kill ``kills`` times at moments that ``seed`` draws, then let the command finish; return 0 if
    nothing was found."""
    out, chance = folder / "out", random.Random(seed)
    environment = {**os.environ, "THAWBENCH_CACHE": str(folder / "cache")}
    faults: list[str] = []
    kept: dict[str, str] = {}
    for number in range(kills):
        if len(kept) == RUNS:  # start over, so that there is work to kill
            kept = {}
            out = folder / f"out{number}"
        fresh = ["--fresh"] if chance.random() < 0.2 else []
        process = _start([*COMMAND, "--out", str(out), *fresh], environment)
        time.sleep(chance.uniform(0.05, LONGEST_S))
        process.send_signal(chance.choice(SIGNALS))
        process.wait()
        faults += [f"kill {number}: {fault}" for fault in _check(out, kept, bool(fresh))]
        print(f"\r{number + 1} of {kills} kills, {len(faults)} faults", end="", file=sys.stderr)
    last = _start([*COMMAND, "--out", str(out)], environment)
    if last.wait() != 0:
        faults.append(f"the last command ended with {last.returncode}")
    faults += _check(out, kept, fresh=False)
    if len(kept) != RUNS:
        faults.append(f"{len(kept)} of {RUNS} runs are there in the end")
    faults += [f"left behind: {path}" for path in (out / ".partial").glob("*")]
    faults += [f"left behind: {path}" for path in folder.rglob(".writing-*")]
    print(json.dumps({"kills": kills, "faults": faults}, indent=1))
    return 1 if faults else 0


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(project_root() / "run_bench.py"), *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    )


def _check(out: Path, kept: dict[str, str], fresh: bool) -> list[str]:
    """Return what is wrong after a kill; add the results that are there to ``kept``."""
    faults = []
    deadline = time.monotonic() + ORPHANS_S
    while _workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    faults += [f"a worker lives on: {worker}" for worker in _workers()]
    if not out.exists():
        return faults
    runs, problems = Store(out).load()
    faults += problems
    found = {run.result.run_id: run.result.model_dump_json() for run in runs}
    aside = {json.loads(p.read_bytes())["run_id"] for p in out.glob(".partial/*/old/result.json")}
    faults += [f"lost: {name}" for name in kept.keys() - found.keys() - aside]
    if not fresh:
        faults += [f"changed: {n}" for n in kept.keys() & found.keys() if kept[n] != found[n]]
    kept.update(found)
    return faults


def _workers() -> list[str]:
    done = subprocess.run(["pgrep", "-f", "backends.worker"], capture_output=True, text=True)
    return done.stdout.split()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
