"""Sound cut where it is quiet, into stretches that fit into one window each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from experiments.transcribe.levels import FRAME, SPAN, levels
from experiments.transcribe.long_form import Pcm

EARLIEST = WINDOW_SAMPLES // 2  # a cut comes no earlier, or the windows would be half empty


@dataclass(frozen=True)
class Stretch:
    """Sound of at most one window: `pcm` float32 [up to 480000], from sample `start` of its file."""

    start: int
    pcm: np.ndarray

    @property
    def start_s(self) -> float:
        return self.start / SAMPLE_RATE_HZ

    def window(self, start: int) -> np.ndarray:
        """What is left of it from its sample `start`."""
        return self.pcm[start:]


def cut(sound: Pcm) -> Iterator[Stretch]:
    """The whole sound in stretches of 15 to 30 s (the last may be shorter), each cut in a pause."""
    start = 0
    while len(pcm := sound.window(start)):
        length = len(pcm) if len(pcm) < WINDOW_SAMPLES else quietest(pcm)
        yield Stretch(start, pcm[:length].copy())
        start += length


def quietest(pcm: np.ndarray) -> int:
    """The sample of `pcm` after its first half around which it is quietest for 0.2 s; the last such."""
    level = levels(pcm[EARLIEST:])
    last = len(level) - 1 - int(np.argmin(level[::-1]))
    return EARLIEST + last * FRAME + SPAN // 2
