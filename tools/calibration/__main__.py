"""``python -m tools.calibration collect FOLDER`` and ``… report FOLDER COMMIT``."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.calibration.collect import CULPRIT_FOLDER, collect, collect_culprits
from tools.calibration.report import write


def main() -> None:
    """Do what the first word says."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "collect":
        collect(folder)
        collect_culprits(folder / CULPRIT_FOLDER)
    else:
        write(folder, Path("results"), sys.argv[3])


if __name__ == "__main__":
    main()
