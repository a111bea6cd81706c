"""Decoders that say what a test wants, and sound that says nothing by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from experiments.transcribe.decoding import Collect, Decoded, Window
from experiments.transcribe.long_form import Language

END, PREVIOUS, BEGIN = 100, 101, 110  # ids: text is below END; <|0.00|> is BEGIN
LANGUAGE = Language(
    task=(102, 103),
    previous=PREVIOUS,
    end=END,
    timestamp_begin=BEGIN,
    text=lambda tokens: "".join(f" w{token}" for token in tokens),
)


def at(seconds: float) -> int:
    """The timestamp token."""
    return BEGIN + round(seconds * 50)


def said(*tokens: int, logprob: float = -0.1, no_speech: float = 0.0) -> Decoded:
    return Decoded(tokens, logprob, no_speech)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    samples = round(seconds * SAMPLE_RATE_HZ)
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@dataclass
class Samples:
    """Sound in memory."""

    pcm: np.ndarray

    def window(self, start: int) -> np.ndarray:
        return self.pcm[start : start + WINDOW_SAMPLES]


@dataclass
class Scripted:
    """Answers each window with `answer`, and keeps which windows came together."""

    answer: Callable[[Window], Decoded]
    batch: int = 1
    asked: list[list[Window]] = field(default_factory=list)

    def queue(self, windows: Sequence[Window]) -> Collect:
        self.asked.append(list(windows))
        return lambda: [self.answer(window) for window in windows]
