"""How far a command is, on a terminal and only if it takes long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, Timer
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PATIENCE_S = 2.0


class Stages:
    """A bar on stderr that names the stage at work; it appears after two seconds, and on terminals only."""

    def __init__(self, names: Sequence[str], console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # Standard output stays as it is: tables go there, the bar to stderr.
        self._bar = Progress(
            *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._names = list(names)
        self._done = 0
        self._task = self._bar.add_task(self._names[0], total=len(self._names))
        self._lock = Lock()
        self._timer = Timer(PATIENCE_S, self._show)
        self._timer.daemon = True
        self._terminal = console.is_terminal

    def __enter__(self) -> Stages:
        if self._terminal:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._bar.live.is_started:  # where it is not, stopping it would print an empty line
                self._bar.stop()

    def next(self) -> None:
        """The stage at work is done."""
        self._done += 1
        self._bar.update(self._task, completed=self._done, description=self._names[self._done])

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something is printed."""
        with self._lock:
            shown = self._bar.live.is_started
            if shown:
                self._bar.stop()
            try:
                yield
            finally:
                if shown:
                    self._bar.start()

    def _show(self) -> None:
        with self._lock:
            self._bar.start()
