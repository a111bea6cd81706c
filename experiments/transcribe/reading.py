"""Sound files read as a stream: any rate, any number of channels, hours of them in a few megabytes.

libsndfile reads WAV, FLAC, OGG, MP3 and more; the rest (MPEG-4, Matroska, AMR ...) goes through audioread, as
librosa does it, which needs ffmpeg. Importable without torch.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import audioread
import numpy as np
import soundfile
import soxr

from experiments import audio
from experiments.audio import SAMPLE_RATE_HZ, SHORTEST_S, WINDOW_SAMPLES, unusable
from harness.errors import ExitCode, UserError

BLOCK_S = 10.0
# What libsndfile does not read, by how such files begin (offset, bytes) and end.
OTHER_FORMATS = (
    ("MPEG-4 audio or video", 4, b"ftyp"),
    ("Matroska or WebM", 0, b"\x1a\x45\xdf\xa3"),
    ("Windows Media", 0, b"\x30\x26\xb2\x75"),
    ("AMR", 0, b"#!AMR"),
    ("AAC", 0, b"\xff\xf1"),
    ("AAC", 0, b"\xff\xf9"),
    ("FLV video", 0, b"FLV\x01"),
    ("AVI video", 8, b"AVI "),
    ("Monkey's Audio", 0, b"MAC "),
    ("WavPack", 0, b"wvpk"),
    ("AC-3", 0, b"\x0b\x77"),
)
OTHER_SUFFIXES = frozenset(
    f".{name}"
    for names in ("3gp aac ac3 amr ape avi flv m4a m4b", "mka mkv mov mp4 mpeg mpg webm wma wv")
    for name in names.split()
)
SUFFIXES = OTHER_SUFFIXES | {f".{name.lower()}" for name in soundfile.available_formats()} | {".opus", ".oga"}


@dataclass(frozen=True)
class Sound:
    """A file that can be read. dur_s: by its header; rate_hz, channels: as they are in the file."""

    path: Path
    dur_s: float
    rate_hz: int
    channels: int
    format_name: str | None = None  # None: libsndfile reads it

    def blocks(self) -> Iterator[np.ndarray]:
        """The whole file as mono float32 at 16 kHz, about ten seconds at a time; checks while it reads.

        Raises UserError for a file that turns out to be damaged, cut short or not made of numbers.
        """
        resampler = soxr.ResampleStream(self.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        for block in self._mono():
            if not np.isfinite(block).all():
                raise unusable(self.path, "holds NaN or infinite samples", "a file whose samples are numbers")
            yield block if self.rate_hz == SAMPLE_RATE_HZ else resampler.resample_chunk(block)
        if self.rate_hz != SAMPLE_RATE_HZ:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _mono(self) -> Iterator[np.ndarray]:
        return self._by_libsndfile() if self.format_name is None else self._by_audioread()

    def _by_libsndfile(self) -> Iterator[np.ndarray]:
        frames = 0
        try:
            with soundfile.SoundFile(self.path) as file:
                promised = file.frames
                for block in file.blocks(int(BLOCK_S * self.rate_hz), dtype="float32", always_2d=True):
                    frames += len(block)
                    yield block.mean(axis=1)
        except (soundfile.LibsndfileError, RuntimeError) as problem:
            what = f"is damaged or truncated ({audio.reason(problem)})"
            raise unusable(self.path, what, "the whole file") from None
        if frames < promised:
            what = f"is truncated: {frames} of {promised} samples can be read"
            raise unusable(self.path, what, "the whole file")

    def _by_audioread(self) -> Iterator[np.ndarray]:
        try:
            with audioread.audio_open(self.path) as file:
                for raw in file:
                    samples = np.frombuffer(raw, "<i2").reshape(-1, self.channels)
                    yield samples.mean(axis=1, dtype=np.float32) / 32768
        except (audioread.DecodeError, OSError) as problem:
            raise unusable(
                self.path, f"is damaged ({problem or type(problem).__name__})", "the whole file"
            ) from None


def open_sound(path: Path) -> Sound:
    """Look at a file's header. Raises UserError for what is no sound, or needs something installed."""
    if not path.is_file():
        raise unusable(
            path, "is no file" if path.exists() else "does not exist", "files or folders of sound, or -"
        )
    if not os.access(path, os.R_OK):
        raise unusable(path, "can't be read: permission denied", f"chmod +r {path}")
    name = _other_format(path)
    sound = _header(path) if name is None else _foreign(path, name)
    if sound.dur_s < SHORTEST_S:
        what = f"lasts {sound.dur_s:.3f} s; nothing can be said in that"
        raise unusable(path, what, f"at least {SHORTEST_S} s")
    return sound


def sound_files(path: Path) -> list[Path]:
    """The file itself, or every sound file in the folder, sorted by name. Raises UserError."""
    if not path.is_dir():
        return [path]
    files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
    if not files:
        raise unusable(path, "holds no sound file", "a folder with files like WAV, FLAC, OGG or MP3")
    return files


@contextmanager
def standard_input() -> Iterator[Path]:
    """What is piped in, as a file for as long as it is needed: sound formats are not read front to back.

    Raises UserError where there is no standard input.
    """
    if sys.stdin is None:
        raise UserError("there is no standard input to read", "a pipe, or a file by its name", ExitCode.INPUT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        with open(path, "wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        yield path


class Stream:
    """Blocks of sound as one signal, of which a window at a time is held."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._held = np.empty(0, np.float32)
        self._start = 0

    def window(self, start: int) -> np.ndarray:
        """Up to 480000 samples from `start`, float32; fewer at the end. `start` never goes back."""
        parts = [self._held[start - self._start :]]
        position = self._start + len(self._held)
        while position - start < WINDOW_SAMPLES and (block := next(self._blocks, None)) is not None:
            parts.append(block[max(0, start - position) :])
            position += len(block)
        self._held, self._start = np.concatenate(parts), start
        return self._held[:WINDOW_SAMPLES]


def _header(path: Path) -> Sound:
    info = audio.header(path)
    return Sound(path, info.duration, info.samplerate, info.channels)


def _foreign(path: Path, name: str) -> Sound:
    try:
        with closing(audioread.audio_open(path)) as file:
            return Sound(path, file.duration, file.samplerate, file.channels, name)
    except audioread.NoBackendError:
        if any(backend.__name__ == "FFmpegAudioFile" for backend in audioread.available_backends()):
            raise unusable(path, f"is {name}, and ffmpeg finds no sound in it", "the whole file") from None
        raise UserError(
            f"{path} is {name}, which needs ffmpeg, and there is none here",
            f"apt-get install ffmpeg (or conda, brew), or elsewhere: ffmpeg -i {path.name} {path.stem}.flac",
            ExitCode.INPUT,
        ) from None


def _other_format(path: Path) -> str | None:
    """The name of a format that libsndfile does not read, None for all others."""
    with open(path, "rb") as file:
        begin = file.read(16)
    for name, offset, mark in OTHER_FORMATS:
        if begin[offset : offset + len(mark)] == mark:
            return name
    return None
