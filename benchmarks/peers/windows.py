"""Windows of 30 s that differ from each other, from the bundled clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from harness.environment import PROJECT

CLIPS = tuple(PROJECT / "experiments" / "clips" / name for name in ("harbour.flac", "kernels.flac"))
_SHIFT = 7919  # samples, half a second


def write(folder: Path, count: int) -> None:
    """`count` WAV files of one window each, the same ones every time. The first is the first clip as it is;
    in the others both clips are shifted around and mixed, in turns with one and the other in front."""
    voices = [_window(clip) for clip in CLIPS]
    for number in range(count):
        front, behind = voices[number % 2], voices[1 - number % 2]
        mixed = np.roll(front, number * _SHIFT)
        if number:
            mixed = 0.7 * mixed + 0.3 * np.roll(behind, -number * _SHIFT)
        soundfile.write(folder / f"{number:03d}.wav", mixed, SAMPLE_RATE_HZ, subtype="PCM_16")


def read(folder: str | Path) -> list[np.ndarray]:
    """The windows in their order: float32 [480000] each."""
    return [soundfile.read(file, dtype="float32")[0] for file in sorted(Path(folder).glob("*.wav"))]


def _window(clip: Path) -> np.ndarray:
    samples, _ = soundfile.read(clip, dtype="float32", frames=WINDOW_SAMPLES)
    return np.pad(samples, (0, WINDOW_SAMPLES - len(samples)))
