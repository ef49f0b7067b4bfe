"""``python -m tools.advice_record collect FOLDER`` and ``… report FOLDER COMMIT``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.advice_record.collect import collect
from tools.advice_record.report import write


def main() -> None:
    """Measure what is missing, or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.advice_record")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("collect", "measure what is missing"), ("report", "write the page")):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path)
        if name == "report":
            command.add_argument("commit", help="commit of the code that measured")
    asked = parser.parse_args()
    if asked.command == "collect":
        collect(asked.folder)
    else:
        write(asked.folder, Path("results"), asked.commit)


if __name__ == "__main__":
    main()
