"""How loud sound is, over spans of 0.2 s: longer than the stop of a consonant, shorter than a pause."""

from __future__ import annotations

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ

FRAME = SAMPLE_RATE_HZ // 50  # 20 ms: at least one period of a low voice
SPAN = 10 * FRAME


def levels(pcm: np.ndarray) -> np.ndarray:
    """Mean amplitude of each span: [frames - 9], a span begins at each frame; empty for less than a span.

    It is the geometric mean over the span's frames, so that one loud frame does not outweigh nine quiet ones: a
    pause is quiet throughout.
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
