"""``python -m tools.advice_record collect FOLDER``, ``… learn FOLDER`` and
``… report FOLDER COMMIT``."""

from __future__ import annotations

import argparse
from pathlib import Path

import bench.advise
from bench.advise.experience import FILE
from bench.storage.text_files import json_text, replace_text
from tools.advice_record.collect import collect
from tools.advice_record.learn import learn
from tools.advice_record.measured import load
from tools.advice_record.report import write


def main() -> None:
    """Measure what is missing, learn from it, or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tools.advice_record")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("collect", "measure what is missing"),
        ("learn", "write the experience of all cells into the package"),
        ("report", "write the page"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path)
        if name == "report":
            command.add_argument("commit", help="commit of the code that measured")
    asked = parser.parse_args()
    if asked.command == "collect":
        collect(asked.folder)
    elif asked.command == "learn":
        learned = learn(load(asked.folder))
        file = Path(bench.advise.__file__).with_name(FILE)
        replace_text(file, json_text(learned.model_dump(mode="json")) + "\n")
    else:
        write(asked.folder, Path("results"), asked.commit)


if __name__ == "__main__":
    main()
