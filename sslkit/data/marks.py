"""What a person says of the pictures of a folder: sslkit_labels.csv in that folder, written whole at each change."""
import csv
import io
import time
from pathlib import Path
from typing import NamedTuple

from sslkit.errors import InputError, require
from sslkit.files import write_file

NAME = "sslkit_labels.csv"
PARTS = ("train", "check", "review")     # chosen to learn from; drawn at random to measure; a guess that was looked at


class Mark(NamedTuple):
    """A person's word on a picture."""
    label: str                    # empty: the person cannot or will not say
    part: str                     # one of PARTS
    guess: str = ""               # of a picture that was reviewed: the label that the machine had
    when: str = ""                # as 2026-11-25T13:40:02


class Marks:
    """The marks of a folder's pictures, by file as its path from there, in the order in which they were made. folder:
    None keeps them in memory alone. InputError for a file that cannot be read."""

    def __init__(self, folder: str | Path | None):
        self.path, self.by_file = None if folder is None else Path(folder) / NAME, {}
        self._read()

    def _read(self) -> None:
        """Take over what the file says: another notebook may have written it since."""
        if self.path is None or not self.path.exists():
            return
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
            self.by_file = {row["file"]: Mark(*(row[name] for name in Mark._fields)) for row in rows}
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise InputError(f"{self.path} cannot be read ({error}): repair it, or move it away and begin anew"
                             ) from error
        odd = [mark.part for mark in self.by_file.values() if mark.part not in PARTS]
        require(not odd, f"{self.path} has {odd[:1]} in its column `part`; known: {', '.join(PARTS)}")

    def put(self, marks: dict[str, Mark]) -> None:
        """Set these marks, last in order, and write them all. InputError, and nothing is set, if that fails."""
        self._read()
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        kept = {file: mark for file, mark in self.by_file.items() if file not in marks}
        self._write(kept | {file: mark._replace(when=now) for file, mark in marks.items()})

    def take_back(self, files: set[str]) -> str | None:
        """Remove the last mark of one of `files`; the file, or None if none has a mark."""
        self._read()
        last = next((file for file in reversed(self.by_file) if file in files), None)
        if last is not None:
            self._write({file: mark for file, mark in self.by_file.items() if file != last})
        return last

    def labels(self, *parts: str) -> dict[str, str]:
        """file -> label of the marks of these parts that have one."""
        return {file: mark.label for file, mark in self.by_file.items() if mark.part in parts and mark.label}

    def _write(self, marks: dict[str, Mark]) -> None:
        if self.path is None:
            self.by_file = marks
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file", *Mark._fields))
        writer.writerows((file, *mark) for file, mark in marks.items())
        try:
            write_file(self.path, text.getvalue())
        except InputError as error:
            raise InputError(f"could not write {self.path} ({error.__cause__}): make the folder writable, or copy it "
                             "to a place of your own") from error
        self.by_file = marks
