"""Many stretches of sound decoded side by side: whatever is ready fills the rows of one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from experiments.transcribe.decoding import Collect, Decoded, Window, WindowDecoder
from experiments.transcribe.long_form import StretchDecoding
from experiments.transcribe.results import Segment
from harness.errors import UserError

Key = TypeVar("Key")


@dataclass(frozen=True)
class Task(Generic[Key]):
    """A stretch that is being decoded; key: whose it is, index: its place there."""

    key: Key
    index: int
    decoding: StretchDecoding


@dataclass(frozen=True)
class Finished(Generic[Key]):
    """A stretch that was decoded."""

    key: Key
    index: int
    segments: list[Segment]


@dataclass(frozen=True)
class Whole(Generic[Key]):
    """All `count` stretches of `key` have been handed in."""

    key: Key
    count: int


@dataclass(frozen=True)
class Failed(Generic[Key]):
    """`key` can't be decoded any further."""

    key: Key
    error: UserError


def together(
    events: Iterator[Task[Key] | Whole[Key] | Failed[Key]], decoder: WindowDecoder
) -> Iterator[Finished[Key] | Whole[Key] | Failed[Key]]:
    """Decode the windows of up to `decoder.batch` tasks at a time; a task that ends makes room for the next.

    There are two such groups in turn: the host reads the results of one and prepares its next windows
    while the device decodes the other. What is no task is passed on.
    """
    queued, other = _Group[Key](), _Group[Key]()
    more = True
    while True:
        while more and len(other.live) < decoder.batch:
            event = next(events, None)
            if event is None:
                more = False
            elif isinstance(event, Task):
                yield from other.advance(event, None)
            else:
                yield event
        if not more and len(queued.live) + len(other.live) <= decoder.batch:
            yield from queued.collect()  # few are left: one full batch is faster than two that overlap
            other.live += queued.live
            queued.live = []
        other.queue(decoder)
        yield from queued.collect()
        if not (more or queued.live or other.live):
            return
        queued, other = other, queued


class _Group(Generic[Key]):
    """Tasks whose windows are decoded together: `live`, with the window that each waits for."""

    def __init__(self) -> None:
        self.live: list[tuple[Task[Key], Window]] = []
        self._collect: Collect | None = None

    def queue(self, decoder: WindowDecoder) -> None:
        if self.live:
            self._collect = decoder.queue([window for _, window in self.live])

    def collect(self) -> Iterator[Finished[Key] | Failed[Key]]:
        """Send each task what was decoded for it."""
        if self._collect is None:
            return
        answers, self._collect = self._collect(), None
        asked, self.live = self.live, []
        for (task, _), answer in zip(asked, answers, strict=True):
            yield from self.advance(task, answer)

    def advance(self, task: Task[Key], answer: Decoded | None) -> Iterator[Finished[Key] | Failed[Key]]:
        """Send a task what was decoded; it has a next window, or ends."""
        try:
            window = next(task.decoding) if answer is None else task.decoding.send(answer)
            self.live.append((task, window))
        except StopIteration as end:
            yield Finished(task.key, task.index, end.value)
        except UserError as error:
            yield Failed(task.key, error)
