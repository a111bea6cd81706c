"""What is shown on the terminal while files are transcribed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiments.transcribe.reading import open_sound
from harness.errors import UserError


class RealTimeFactor(ProgressColumn):
    """Seconds of sound for each second that has passed."""

    def render(self, task: Task) -> Text:
        factor = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{factor:.0f}× real time" if task.completed else "")


class Bar:
    """A bar over the seconds of sound of all files, on standard error if that is a terminal."""

    def __init__(self, sounds: Sequence[Path], console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),  # file names
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
            RealTimeFactor(),
            TimeRemainingColumn(),
        )
        on_screen = sys.stdout is not None and sys.stdout.isatty()
        self.progress = Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=on_screen,  # text that goes into a file must get there
        )
        self._task = self.progress.add_task("", total=_total_s(sounds))

    def advance(self, sound: Path, seconds: float) -> None:
        """`seconds` more of `sound` have been transcribed."""
        self.progress.update(self._task, advance=seconds, description=sound.name)


def _total_s(sounds: Sequence[Path]) -> float:
    total_s = 0.0
    for sound in sounds:
        with suppress(UserError):  # its turn comes
            total_s += open_sound(sound).dur_s
    return total_s
