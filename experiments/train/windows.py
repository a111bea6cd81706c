"""Windows laid out from the segments of a corpus, with what Whisper would have to write for each.

The forms are those of Whisper's training (Radford et al. 2022, arXiv 2212.04356, section 2.3): with and
without timestamps, with and without the text before, no speech at all. A segment that the window's end cuts
gives its start time only, so that the next window begins there.
"""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train.corpus import Pool
from experiments.train.recipe import Stage
from experiments.train.tokens import Ids

IGNORED = -100  # torch's cross-entropy leaves such targets out
PROMPT_TOKENS = 120  # of the text before, at most
NO_SPEECH_SHARE = 0.04
TIMESTAMPS_SHARE = 0.5
SHORT_SHARE = 0.4  # windows that a clip does not fill
CUT_SHARE = 0.5  # of the filled windows with timestamps, those that cut their last segment


@dataclass(frozen=True)
class Placed:
    """A segment of the corpus in a window: `index` in the pool, first sample in the window, gain."""

    index: int
    start: int
    gain: float


@dataclass(frozen=True)
class Layout:
    """One window: its whole segments, one that its end cuts (or None), and where its sound ends (samples)."""

    segments: tuple[Placed, ...]
    cut: Placed | None
    end: int


@dataclass(frozen=True)
class Batch:
    """Arrays of one training batch of B windows of up to S segments.

    start, source, length: int64 [B, S], first sample in the window, first sample in the pool, samples (0:
    none); gain: float32 [B, S]; end: int64 [B], zeros follow; ids, targets: int64 [B, L], decoder input and
    what it should answer; ctc, ctc_length: int64 [B, C] and [B], text tokens; ctc_counts: float32 [B], 0
    leaves the window out.
    """

    start: np.ndarray
    source: np.ndarray
    length: np.ndarray
    gain: np.ndarray
    end: np.ndarray
    ids: np.ndarray
    targets: np.ndarray
    ctc: np.ndarray
    ctc_length: np.ndarray
    ctc_counts: np.ndarray


class Windows:
    """Draws batches: `tokens` holds the text tokens of each segment of `pool` (with their leading space)."""

    def __init__(self, pool: Pool, tokens: list[list[int]]) -> None:
        self._lengths = pool.lengths.tolist()
        self._starts = pool.starts.tolist()
        self._tokens = tokens
        self._ids = Ids()

    def batch(self, rng: random.Random, stage: Stage) -> Batch:
        """The windows of one step of `stage`, drawn with `rng`."""
        layouts, rows, ctc = [], [], []
        for _ in range(stage.batch):
            timestamps = rng.random() < TIMESTAMPS_SHARE
            layout = self._layout(rng, round(stage.window_s * SAMPLE_RATE_HZ), timestamps)
            layouts.append(layout)
            prompted = rng.random() < stage.prompted
            ids, targets = self._sequence(rng, layout, timestamps, prompted)
            rows.append((ids[: stage.tokens], targets[: stage.tokens]))
            ctc.append([token for placed in layout.segments for token in self._tokens[placed.index]])
        return self._arrays(layouts, rows, ctc, stage.tokens)

    def _layout(self, rng: random.Random, samples: int, timestamps: bool) -> Layout:
        if rng.random() < NO_SPEECH_SHARE:
            return Layout((), None, samples if rng.random() < 0.5 else rng.randrange(samples // 10, samples))
        short = rng.random() < SHORT_SHARE
        room = rng.randrange(samples // 8, samples) if short else samples
        cutting = timestamps and not short and rng.random() < CUT_SHARE
        index = rng.randrange(len(self._lengths))
        at = self._pause(rng)
        placed: list[Placed] = []
        cut = None
        while index < len(self._lengths):
            gain = 10 ** (rng.uniform(-6, 0) / 20)
            if at + self._lengths[index] > room:
                if cutting and placed and at < room - SAMPLE_RATE_HZ // 2:
                    cut = Placed(index, at, gain)
                elif not placed:  # too long for this window: a shorter one follows soon
                    index = (index + 1) % len(self._lengths)
                    room = samples
                    at = min(at, samples // 20)
                    continue
                break
            placed.append(Placed(index, at, gain))
            at += self._lengths[index] + self._pause(rng)
            index += 1
        last = placed[-1]
        spoken = last.start + self._lengths[last.index]
        tail = rng.randrange(0, SAMPLE_RATE_HZ // 2)
        return Layout(tuple(placed), cut, samples if cut or not short else min(samples, spoken + tail))

    @staticmethod
    def _pause(rng: random.Random) -> int:
        """Samples of silence before a segment: mostly 0.05 to 0.8 s, at times seconds."""
        seconds = rng.uniform(0.8, 4.0) if rng.random() < 0.08 else rng.uniform(0.05, 0.8)
        return round(seconds * SAMPLE_RATE_HZ)

    def _sequence(
        self, rng: random.Random, layout: Layout, timestamps: bool, prompted: bool
    ) -> tuple[list[int], list[int]]:
        """Decoder input and targets; what is given to the decoder (prompt, task) is no target."""
        ids = self._ids
        previous = self._previous(rng, layout, timestamps) if prompted else []
        speech = bool(layout.segments)
        task = [ids.start, ids.english, ids.transcribe] + ([] if timestamps else [ids.no_timestamps])
        content = self._content(layout, timestamps)
        whole = previous + task + content + [ids.end]
        targets = [IGNORED] * (len(previous) + len(task) - 1) + content + [ids.end]
        targets[len(previous)] = ids.english if speech else ids.no_speech
        return whole[:-1], targets

    def _content(self, layout: Layout, timestamps: bool) -> list[int]:
        if not timestamps:
            return [token for placed in layout.segments for token in self._tokens[placed.index]]
        content: list[int] = []
        for placed in layout.segments:
            stop = placed.start + self._lengths[placed.index]
            content += [self._time(placed.start), *self._tokens[placed.index], self._time(stop)]
        if layout.cut:
            content.append(self._time(layout.cut.start))
        return content or [self._ids.timestamps]

    def _time(self, sample: int) -> int:
        return self._ids.timestamp(sample / SAMPLE_RATE_HZ)

    def _previous(self, rng: random.Random, layout: Layout, timestamps: bool) -> list[int]:
        """The segments before this window as its prompt; one in ten is of another talk."""
        first = layout.segments[0].index if layout.segments and rng.random() > 0.1 else None
        until = rng.randrange(len(self._lengths)) if first is None else first
        with_times = timestamps and rng.random() < 0.5
        at, prompt = 0, []
        for index in range(max(0, until - rng.randint(1, 6)), until):
            stop = at + self._lengths[index]
            text = self._tokens[index]
            prompt += [self._time(at), *text, self._time(stop)] if with_times else text
            at = stop + self._pause(rng)
        return [self._ids.previous, *prompt[-PROMPT_TOKENS:]] if prompt else []

    def _arrays(
        self, layouts: list[Layout], rows: list[tuple[list[int], list[int]]], ctc: list[list[int]], width: int
    ) -> Batch:
        heard = [[*x.segments, *([x.cut] if x.cut else [])] for x in layouts]
        return Batch(
            start=_padded([[p.start for p in row] for row in heard], 2**40),
            source=_padded([[self._starts[p.index] for p in row] for row in heard], 0),
            length=_padded([[self._lengths[p.index] for p in row] for row in heard], 0),
            gain=_padded([[p.gain for p in row] for row in heard], 0.0, np.float32),
            end=np.array([x.end for x in layouts]),
            ids=_padded([row[0] for row in rows], self._ids.end, width=width),
            targets=_padded([row[1] for row in rows], IGNORED, width=width),
            ctc=_padded(ctc, 0),
            ctc_length=np.array([len(row) for row in ctc]),
            ctc_counts=np.array([bool(x.segments) and x.cut is None for x in layouts], np.float32),
        )


_adopted: list[Windows] = []  # in a worker process: the one whose batches it draws


def adopt(windows: Windows) -> None:
    """Start a worker process: `draw` will use `windows`. Interrupts are the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _adopted[:] = [windows]


def draw(seed: str, stage: Stage) -> Batch:
    """In a worker process: the batch that `seed` stands for."""
    return _adopted[0].batch(random.Random(seed), stage)


def _padded(rows: list[list], fill: float, dtype: type = np.int64, width: int = 1) -> np.ndarray:
    width = max(width, *(len(row) for row in rows))
    return np.array([row + [fill] * (width - len(row)) for row in rows], dtype)
