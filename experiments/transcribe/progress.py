"""What is shown on the terminal while files are transcribed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from experiments.transcribe.reading import open_sound
from harness.errors import UserError


class Seconds(ProgressColumn):
    """How many are done, and of how many, once that is known."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f}{'' if task.total is None else f'/{task.total:.0f}'} s")


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
            Seconds(),
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
        self._task = self.progress.add_task("", total=None)
        # Many headers take seconds, which nothing has to wait for.
        self.finding = threading.Thread(target=self._find_total, args=(sounds,), daemon=True)
        if console.is_terminal:
            self.finding.start()

    def advance(self, sound: Path, seconds: float) -> None:
        """`seconds` more of `sound` have been transcribed."""
        self.progress.update(self._task, advance=seconds, description=sound.name)

    def _find_total(self, sounds: Sequence[Path]) -> None:
        self.progress.update(self._task, total=_total_s(sounds))


def _total_s(sounds: Sequence[Path]) -> float | None:
    """Seconds by the headers; None if one does not say."""
    total_s = 0.0
    for sound in sounds:
        with suppress(UserError, OSError):  # its turn comes
            dur_s = open_sound(sound).dur_s
            if dur_s is None:
                return None
            total_s += dur_s
    return total_s
