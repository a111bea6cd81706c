"""Progress lines from a child, and the bar that its parent draws from them."""

from __future__ import annotations

import json
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PREFIX = "@progress "
PATIENCE_S = 2.0


def report(done: int, total: int, what: str) -> None:
    """Called in a child: `done` of `total` steps of `what` are behind us."""
    print(PREFIX + json.dumps({"done": done, "total": total, "what": what}), flush=True)


class Bar:
    """A progress bar that appears on a terminal when the work takes longer than two seconds."""

    def __init__(self, console: Console, what: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # Redrawn rarely: the parent shares the machine with what it measures.
        self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=2)
        self._task = self._progress.add_task(what, total=None)
        self._due = time.monotonic() + PATIENCE_S if console.is_terminal else None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def wait_s(self) -> float | None:
        """Seconds until `tick` has something to do, or None if it never will."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def tick(self) -> None:
        """Show the bar if it is due."""
        if self.wait_s() == 0.0:
            self._progress.start()
            self._due = None

    def feed(self, line: str) -> bool:
        """Take in one line of the child's output; True if it was a progress line."""
        if not line.startswith(PREFIX):
            return False
        try:
            state = json.loads(line.removeprefix(PREFIX))
            self._progress.update(
                self._task, completed=state["done"], total=state["total"], description=state["what"]
            )
        except (ValueError, KeyError, TypeError):
            return False
        return True
