"""Sound files that can't be used, one of each kind, and what has to be said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def tone(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def guessed_mp3(folder: Path) -> Path:
    """Two seconds that no header tells of: libsndfile guesses more, from the size and the first frame."""
    path = folder / "a.mp3"
    pcm = np.zeros(32_000, np.float32)
    pcm[16_000:] = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(path, pcm, 16_000)
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(whole[:2], 100) :])  # without its first frame, which is the header
    return path


def bad_sound(folder: Path, kind: str) -> Path:
    """One file (or a missing one) for each way in which audio can be unusable."""
    path = folder / f"{kind}.wav"
    match kind:
        case "empty":
            path.touch()
        case "text":
            path.write_text("this is no sound")
        case "zeros":
            soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
        case "nan":
            soundfile.write(path, np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
        case "scale":
            soundfile.write(path, 32_767 * tone(1.0), 16_000, subtype="FLOAT")
        case "raw":
            path = folder / "raw.raw"
            path.write_bytes(bytes(32_000))
        case "short":
            soundfile.write(path, tone(0.01), 16_000)
        case "truncated":
            soundfile.write(path, tone(2.0), 16_000)
            path.write_bytes(path.read_bytes()[:20_000])
        case "truncated-flac":
            path = folder / "truncated.flac"
            soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 64_000), 16_000)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "hours":
            # Written in blocks: three hours of silence with a click, small on disk as FLAC.
            path = folder / "hours.flac"
            block = np.zeros(16_000 * 600, np.float32)
            block[0] = 0.5
            with soundfile.SoundFile(path, "w", 16_000, 1) as file:
                for _ in range(18):
                    file.write(block)
        case "folder":
            path = folder / "no-sound-here"
            path.mkdir()
    return path


BAD_SOUND = {
    "missing": "does not exist",
    "empty": "is empty",
    "text": "is not a sound file",
    "zeros": "silence only",
    "nan": "NaN",
    "scale": "holds samples as large as",
    "raw": "is raw sound",
    "short": "0.010 s",
    "truncated": "truncated",
    "truncated-flac": "truncated",
    "hours": "3 h 00 min",
    "folder": "holds no sound file",
}
