"""``python -m tools.calibration collect|report FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.calibration.collect import collect


def main() -> None:
    """Do what the first word says."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "collect":
        collect(folder)


if __name__ == "__main__":
    main()
