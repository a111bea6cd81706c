"""Many stretches of sound decoded side by side: whatever is ready fills the rows of one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from experiments.transcribe.decoding import Decoded, Window, WindowDecoder
from experiments.transcribe.long_form import Listening
from experiments.transcribe.results import Segment
from harness.errors import UserError

Key = TypeVar("Key")


@dataclass(frozen=True)
class Task(Generic[Key]):
    """A stretch that is being listened to; key: whose it is, index: its place there."""

    key: Key
    index: int
    listening: Listening


@dataclass(frozen=True)
class Heard(Generic[Key]):
    """A stretch that was listened to."""

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
    """`key` can't be listened to any further."""

    key: Key
    error: UserError


def together(
    events: Iterator[Task[Key] | Whole[Key] | Failed[Key]], decoder: WindowDecoder
) -> Iterator[Heard[Key] | Whole[Key] | Failed[Key]]:
    """Decode the windows of up to `decoder.batch` tasks at a time; a task that ends makes room for the next.

    What is no task is passed on.
    """
    live: list[tuple[Task[Key], Window]] = []
    more = True
    while live or more:
        while more and len(live) < decoder.batch:
            event = next(events, None)
            if event is None:
                more = False
            elif isinstance(event, Task):
                yield from _advance(event, None, live)
            else:
                yield event
        if live:
            decoded = decoder.decode([window for _, window in live])
            asked, live = live, []
            for (task, _), answer in zip(asked, decoded, strict=True):
                yield from _advance(task, answer, live)


def _advance(
    task: Task[Key], answer: Decoded | None, live: list[tuple[Task[Key], Window]]
) -> Iterator[Heard[Key] | Failed[Key]]:
    """Send a task what was decoded; it joins `live` with its next window, or ends."""
    try:
        window = next(task.listening) if answer is None else task.listening.send(answer)
        live.append((task, window))
    except StopIteration as end:
        yield Heard(task.key, task.index, end.value)
    except UserError as error:
        yield Failed(task.key, error)
