"""The launches of a comparison on disk: written one by one, and continued after an interruption."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError, first_line
from bench.gate.samples import ArmLaunch
from bench.spec.base import SCHEMA_VERSION, short_hash
from bench.storage.text_files import json_text, replace_text

QUESTION_FILE = "question.json"
LAUNCHES_FILE = "launches.jsonl"
RESULT_FILE = "gate.json"
STALE_S = 24 * 3600.0
"""Age in seconds from which on an unfinished comparison is begun anew."""


class Journal:
    """A folder with the question of a comparison, its launches so far, and its result."""

    def __init__(
        self, folder: Path, question: Mapping[str, Any], *, fresh: bool = False,
        stale_s: float = STALE_S,
    ) -> None:  # fmt: skip
        """Open the folder of a question. An unfinished comparison of the same question is
        continued, unless it is older than ``stale_s`` seconds; a finished one is begun anew.

        Args:
            fresh: True to begin anew whatever comparison the folder holds.

        Raises:
            UserError: The folder holds something else, or another comparison.
        """
        self.folder = folder
        self.launches: list[ArmLaunch] = []
        document = {"schema_version": SCHEMA_VERSION, "question": dict(question)}
        text = json_text(document)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"'{folder}' is not a folder.") from error
        file = folder / QUESTION_FILE
        strangers = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if strangers and not file.is_file():
            raise UserError(
                f"The folder '{folder}' holds something else: {strangers[0]}.", "Use another --out."
            )
        is_same = file.is_file() and file.read_text() == text
        if file.is_file() and not is_same and not fresh:
            raise UserError(
                f"The folder '{folder}' holds another comparison: other sides, settings or "
                "versions.",
                "Use another --out, or replace it with --fresh.",
            )
        is_open = is_same and not (folder / RESULT_FILE).exists()
        if is_open and not fresh and time.time() - file.stat().st_mtime < stale_s:
            self.launches = read_launches(folder)
            # Without a line that a crash cut short, to which the next one would be added.
            text = "".join(one.model_dump_json() + "\n" for one in self.launches)
            replace_text(folder / LAUNCHES_FILE, text)
        else:
            (folder / LAUNCHES_FILE).unlink(missing_ok=True)
            (folder / RESULT_FILE).unlink(missing_ok=True)
            replace_text(file, text)

    def add(self, one: ArmLaunch) -> None:
        """Write a launch."""
        self.launches.append(one)
        with (self.folder / LAUNCHES_FILE).open("a", encoding="utf-8") as file:
            file.write(one.model_dump_json() + "\n")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; the comparison is then complete."""
        replace_text(self.folder / RESULT_FILE, json_text(dict(result)))


def read_launches(folder: Path) -> list[ArmLaunch]:
    """Read the launches of a folder; the last line may be cut short by a crash.

    Raises:
        UserError: Another line is damaged.
    """
    file = folder / LAUNCHES_FILE
    if not file.is_file():
        return []
    lines = file.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found.append(ArmLaunch.model_validate_json(line))
        except ValidationError as error:
            if number == len(lines):
                break
            raise UserError(
                f"Line {number} of '{file}' is damaged: {first_line(error)}.",
                "Compare again, with --fresh.",
            ) from error
    return found


def read_question(folder: Path) -> dict[str, Any]:
    """Read the question of a folder.

    Raises:
        UserError: It is no folder of a comparison, or of a newer version.
    """
    file = folder / QUESTION_FILE
    try:
        document = json.loads(file.read_text())
        version, question = int(document["schema_version"]), dict(document["question"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder}' is not the folder of a comparison by `gate`.") from error
    if version > SCHEMA_VERSION:
        raise UserError(
            f"'{file}' is of a newer version of Thawbench (schema {version}).", "Update Thawbench."
        )
    return question


def question_folder(root: Path, question: Mapping[str, Any]) -> Path:
    """Return the usual folder of a question."""
    return root / short_hash(question)
