"""Many sentences in many voices, made by all cores, end to end in one array of samples."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train import text
from experiments.train.speech import Speaker, random_voice
from harness.errors import ExitCode, UserError

SEGMENTS_PER_SPEAKER = 16
SPEAKERS_PER_CHUNK = 4  # a chunk is some 170 s of sound, which take a core 0.4 s


@dataclass
class Pool:
    """Segments, one spoken sentence each; those of one speaker are consecutive.

    samples: int16 [n], all segments end to end; starts, lengths: int64 [segments], in samples; texts: what is
    said, one per segment; speakers: int32 [segments], counted from 0.
    """

    samples: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    texts: list[str]
    speakers: np.ndarray

    @property
    def hours(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ / 3600


@dataclass(frozen=True)
class _Chunk:
    samples: np.ndarray  # int16, all segments end to end
    lengths: list[int]
    texts: list[str]


def make_pool(
    hours: float,
    seed: int,
    workers: int | None = None,
    held_out: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> Pool:
    """As many segments as fit into `hours`, a function of `hours`, `seed` and `held_out` alone.

    workers: processes (None: one per core that this process may use); held_out: voices and sentences that
    training does not hear; on_progress: called with the hours done. 16-bit samples take 115 MB per hour.
    """
    samples = _reserve(round(hours * 3600 * SAMPLE_RATE_HZ))
    lengths: list[int] = []
    texts: list[str] = []
    used = 0
    for chunk in _chunks(seed, held_out, workers or len(os.sched_getaffinity(0))):
        ends = used + np.cumsum(chunk.lengths)
        fitting = int(np.searchsorted(ends, len(samples), side="right"))
        end = int(ends[fitting - 1]) if fitting else used
        samples[used:end] = chunk.samples[: end - used]
        lengths += chunk.lengths[:fitting]
        texts += chunk.texts[:fitting]
        used = end
        if on_progress:
            on_progress(used / SAMPLE_RATE_HZ / 3600)
        if fitting < len(chunk.lengths):
            break
    return Pool(
        samples=samples[:used],
        starts=np.cumsum([0, *lengths[:-1]]) if lengths else np.zeros(0, np.int64),
        lengths=np.array(lengths, np.int64),
        texts=texts,
        speakers=np.arange(len(lengths), dtype=np.int32) // SEGMENTS_PER_SPEAKER,
    )


def _reserve(count: int) -> np.ndarray:
    try:
        return np.empty(count, np.int16)  # pages are taken when they are written to
    except MemoryError as error:
        raise UserError(
            f"{count / SAMPLE_RATE_HZ / 3600:.0f} hours of speech need {count * 2 / 1e9:.0f} GB of memory",
            "fewer hours",
            ExitCode.MACHINE,
        ) from error


def _chunks(seed: int, held_out: bool, workers: int) -> Iterator[_Chunk]:
    """Chunks 0, 1, 2 ... without end, a few made ahead of their use."""
    # A parent that has used CUDA must not be forked. Interrupts are the parent's to handle.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        coming = deque(executor.submit(_make_chunk, seed, index, held_out) for index in range(2 * workers))
        for index in itertools.count(2 * workers):
            yield coming.popleft().result()
            coming.append(executor.submit(_make_chunk, seed, index, held_out))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that makes speech was killed", "fewer hours or workers: less memory", ExitCode.CHILD
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _make_chunk(seed: int, index: int, held_out: bool) -> _Chunk:
    rng = random.Random(f"{seed} {index} {held_out}")
    sentence = text.held_out_sentence if held_out else text.training_sentence
    spoken, texts = [], []
    with Speaker() as speaker:
        for _ in range(SPEAKERS_PER_CHUNK):
            voice = random_voice(rng, held_out)
            for _ in range(SEGMENTS_PER_SPEAKER):
                texts.append(sentence(rng))
                spoken.append(speaker.say(texts[-1], voice))
    return _Chunk(np.concatenate(spoken), [len(samples) for samples in spoken], texts)
