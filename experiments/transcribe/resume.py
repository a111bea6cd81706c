"""Which files are done already, so that an interrupted call goes on where it stopped.

`.transcribed.json` in the output folder says of each output from which sound, and with which settings, it
was made. A file is done if its outputs are there and were made from the same sound with the same settings.
What is there of another sound, or of unknown origin, is never overwritten unasked.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, UserError
from harness.record import write_json

RECORD = ".transcribed.json"
STANDARD_INPUT = "standard input"


@dataclass(frozen=True)
class Target:
    """A sound file and the name of its outputs, without their suffixes.

    identity: `path`, which only this sound has, and what else changes with the sound, as it was before it was
    read; empty for a file that isn't there. piped: the file is a copy of standard input.
    """

    sound: Path
    name: str
    identity: Mapping[str, Any]
    piped: bool = False

    @property
    def shown(self) -> str:
        return STANDARD_INPUT if self.piped else str(self.sound)

    def named(self, error: UserError) -> UserError:
        """`error` with the sound's name as its user knows it."""
        return UserError(str(error).replace(str(self.sound), self.shown), error.hint, error.exit_code)


def place(sound: Path) -> Path:
    """One for all ways to write the path of a file. A link keeps its own name: its outputs have that."""
    return Path(os.path.realpath(sound.parent), sound.name)


def targets(sounds: Sequence[Path], piped: Path | None = None) -> list[Target]:
    """A name for each file: without suffix, or with it where two would have the same."""
    stems = Counter(path.stem for path in sounds)
    named = []
    for path in sounds:
        name = path.stem if stems[path.stem] == 1 else path.name
        named.append(Target(path, name, _identity(path, path == piped), path == piped))
    return named


def check_names(named: Sequence[Target]) -> None:
    """UserError if two would have the same outputs."""
    again = [name for name, count in Counter(target.name for target in named).items() if count > 1]
    if again:
        both = " and ".join(target.shown for target in named if target.name == again[0])
        raise UserError(
            f"{both} would have the same outputs", "one call, with its own --out, for each folder"
        )


class Done:
    """The record of an output folder, which is made if need be. UserError for one that can't be used."""

    def __init__(self, folder: Path, formats: Sequence[str], settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._formats = formats
        self._settings = dict(settings)
        self._record = folder / RECORD
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._known = self._noted({})
        except OSError as problem:
            reason = f"can't write to {folder} ({problem.strerror or problem})"
            raise UserError(reason, "--out FOLDER that you may write to", ExitCode.STORAGE) from None

    def has(self, target: Target) -> bool:
        """Whether all outputs of a file are there, made from it as it is now, with these settings."""
        made = self._made(target)
        return bool(target.identity) and all(
            output.is_file() and self._known.get(output.name) == made for output in self._outputs(target)
        )

    def in_the_way(self, target: Target) -> UserError | None:
        """What the outputs of a file would overwrite and was not made from that file; None for nothing."""
        for output in self._outputs(target) if target.identity else ():
            made_from = self._known.get(output.name, {"sound": {}})["sound"].get("path")
            if made_from == target.identity["path"] or not os.path.lexists(output):
                continue
            what = (
                f"is the text of {made_from}, not" if made_from else "is there already, and not known to be"
            )
            return UserError(
                f"{output} {what} of {target.identity['path'] if target.piped else target.sound}",
                "another --out for this sound, or --force to overwrite what is there",
                ExitCode.STORAGE,
            )
        return None

    def write(self, target: Target, texts: Mapping[str, str]) -> None:
        """The outputs by format, each whole or absent, and the note of what they were made from."""
        outputs = {self._output(target, format_): text for format_, text in texts.items()}
        for output in outputs:
            output.unlink(missing_ok=True)  # an old one must not be taken for what the note says
        self._known = self._noted({output.name: self._made(target) for output in outputs})
        for output, text in outputs.items():
            # Not by the name of the output, which may be as long as names can be.
            temporary = self._folder / f".{os.getpid()}.tmp"
            try:
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(output)
            finally:
                temporary.unlink(missing_ok=True)

    def _output(self, target: Target, format_: str) -> Path:
        return self._folder / f"{target.name}.{format_}"

    def _outputs(self, target: Target) -> list[Path]:
        return [self._output(target, format_) for format_ in self._formats]

    def _made(self, target: Target) -> dict[str, Any]:
        return {"sound": target.identity, "settings": self._settings}

    def _noted(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """The record with `made` put into it; what calls beside this one wrote meanwhile is kept."""
        with _alone(self._folder):
            known = self._read() | dict(made)
            write_json(self._record, known)
        return known

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        entries = known.items() if isinstance(known, dict) else ()
        return {
            name: made for name, made in entries if isinstance(made, dict) and _is_sound(made.get("sound"))
        }


def _is_sound(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("path"), str)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Others who ask for the same folder wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(sound: Path, piped: bool) -> dict[str, Any]:
    try:
        if piped:
            with open(sound, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            return {"path": f"{STANDARD_INPUT} (SHA-256 {digest[:16]})"}
        about = sound.stat()
    except OSError:
        return {}  # whoever reads it says what is wrong
    return {"path": str(place(sound)), "bytes": about.st_size, "modified_ns": about.st_mtime_ns}
