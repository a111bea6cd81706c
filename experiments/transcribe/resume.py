"""Which files are done already, so that an interrupted call goes on where it stopped.

`.transcribed.json` in the output folder says for each output what it was made from and how. A file is done if
its outputs are there and were made from the same sound with the same settings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, UserError
from harness.record import write_json

RECORD = ".transcribed.json"


@dataclass(frozen=True)
class Target:
    """A sound file and the name of its outputs, without their suffixes."""

    sound: Path
    name: str


def targets(sounds: Sequence[Path]) -> list[Target]:
    """A name for each file: without suffix, or with it where two would have the same. Raises UserError."""
    stems = Counter(path.stem for path in sounds)
    named = [Target(path, path.stem if stems[path.stem] == 1 else path.name) for path in sounds]
    again = [name for name, count in Counter(target.name for target in named).items() if count > 1]
    if again:
        both = " and ".join(str(target.sound) for target in named if target.name == again[0])
        raise UserError(
            f"{both} would have the same outputs", "one call, with its own --out, for each folder"
        )
    return named


class Done:
    """The record of an output folder, which is made if need be. UserError for one that can't be used."""

    def __init__(self, folder: Path, formats: Sequence[str], settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._formats = formats
        self._settings = dict(settings)
        self._record = folder / RECORD
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._known = self._read()
            write_json(self._record, self._known)
        except OSError as problem:
            reason = f"can't write to {folder} ({problem.strerror or problem})"
            raise UserError(reason, "--out FOLDER that you may write to", ExitCode.STORAGE) from None

    def has(self, target: Target) -> bool:
        """Whether all outputs of a file are there, made from it as it is now, with these settings."""
        made = self._known.get(target.name)
        outputs = [self.output(target, format_) for format_ in self._formats]
        return made == self._made(target) and all(output.is_file() for output in outputs)

    def output(self, target: Target, format_: str) -> Path:
        return self._folder / f"{target.name}.{format_}"

    def write(self, target: Target, texts: Mapping[str, str]) -> None:
        """The outputs by format, each whole or absent, and the note that they are done."""
        for format_, text in texts.items():
            output = self.output(target, format_)
            temporary = output.with_name(f".{output.name}.tmp")
            try:
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(output)
            finally:
                temporary.unlink(missing_ok=True)
        self._known[target.name] = self._made(target)
        write_json(self._record, self._known)

    def _made(self, target: Target) -> dict[str, Any]:
        try:
            about = target.sound.stat()
        except OSError:
            return {}  # equal to no record: whoever reads it says what is wrong
        sound = {
            "path": str(target.sound.absolute()),
            "bytes": about.st_size,
            "modified_ns": about.st_mtime_ns,
        }
        return {"sound": sound, "settings": self._settings}

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}
