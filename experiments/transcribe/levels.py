"""How loud sound is, over spans of 0.2 s: longer than the stop of a consonant, shorter than a pause."""

from __future__ import annotations

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ

FRAME = SAMPLE_RATE_HZ // 50  # 20 ms: at least one period of a low voice
SPAN = 10 * FRAME
SILENT = 0.03  # of the loudest span, as amplitude: 30 dB below it, which no voice in the same room is
LONG_PAUSE = SAMPLE_RATE_HZ
KEPT = 3 * SAMPLE_RATE_HZ // 10


def levels(pcm: np.ndarray) -> np.ndarray:
    """Mean amplitude of each span: [frames - 9], a span begins at each frame; empty for less than a span.

    It is the geometric mean over the span's frames, so that one loud frame does not outweigh nine quiet ones:
    a pause is quiet throughout.
    """
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME)
    count = SPAN // FRAME
    if len(frames) < count:
        return np.empty(0)
    power = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / FRAME
    logs = np.convolve(np.log(power + 1e-12), np.full(count, 1 / count), mode="valid")
    return np.exp(logs / 2)


def loudest(pcm: np.ndarray) -> float:
    """The level of the loudest span; 0 if there is none."""
    return float(levels(pcm).max(initial=0.0))


def quiet_start(pcm: np.ndarray) -> int:
    """How many samples a window can begin later, because it begins with a long pause; 0 if it does not.

    A little of the pause is left, so that no soft beginning of a word is lost.
    """
    level = levels(pcm)
    heard = np.flatnonzero(level > SILENT * level.max(initial=0.0))
    pause = int(heard[0]) * FRAME if len(heard) else 0
    return pause - KEPT if pause > LONG_PAUSE else 0
