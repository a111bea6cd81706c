"""Sound files read as a stream: any rate, any number of channels, hours of them in a few megabytes.

libsndfile reads WAV, FLAC, OGG, MP3 and more, whose channels count alike; the rest (MPEG-4, Matroska, AMR
...) goes through `ffmpeg`. Importable without torch.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from experiments import audio
from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES, unusable
from experiments.transcribe import ffmpeg
from harness.errors import ExitCode, UserError

BLOCK_S = 10.0
OGG_PAGE_BYTES = 1 << 16  # at most
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
SUFFIXES = OTHER_SUFFIXES | audio.SUFFIXES


@dataclass(frozen=True)
class Sound:
    """A file that can be read. dur_s: by its header, None if that does not say; rate_hz: of what is read."""

    path: Path
    dur_s: float | None
    rate_hz: int
    format_name: str | None = None  # None: libsndfile reads it

    def blocks(self) -> Iterator[np.ndarray]:
        """The whole file as mono float32 at 16 kHz, about ten seconds at a time; checks while it reads.

        Raises UserError for a file that turns out to be damaged, cut short or not made of numbers.
        """
        resampler = soxr.ResampleStream(self.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        for block in self._mono():
            audio.check_values(self.path, block)
            yield block if self.rate_hz == SAMPLE_RATE_HZ else resampler.resample_chunk(block)
        if self.rate_hz != SAMPLE_RATE_HZ:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _mono(self) -> Iterator[np.ndarray]:
        if self.format_name is None:
            return self._by_libsndfile()
        return ffmpeg.blocks(self.path, self.format_name, self.dur_s)

    def _by_libsndfile(self) -> Iterator[np.ndarray]:
        frames, most = 0, int(BLOCK_S * self.rate_hz)
        try:
            with soundfile.SoundFile(os.fsencode(self.path)) as file:
                promised = audio.promised_frames(file)
                # Not blocks(), which fills up to what was promised with whatever lies in memory.
                while len(block := file.read(most, dtype="float32", always_2d=True)):
                    frames += len(block)
                    yield block.mean(axis=1)
        except (soundfile.LibsndfileError, RuntimeError) as problem:
            what = f"is damaged or truncated ({audio.reason(problem)})"
            raise unusable(self.path, what, "the whole file") from None
        if frames < promised:
            what = f"is truncated: {frames} of {promised} samples can be read"
            raise unusable(self.path, what, "the whole file")


def open_sound(path: Path) -> Sound:
    """Look at a file's header. Raises UserError for what is no sound, or needs something installed."""
    if not path.is_file():
        raise unusable(
            path, "is no file" if path.exists() else "does not exist", "files or folders of sound, or -"
        )
    if not os.access(path, os.R_OK):
        raise unusable(path, "can't be read: permission denied", f"chmod +r {path}")
    name = _other_format(path)
    if name is None:
        info = audio.header(path)
        sound = Sound(path, info.duration, info.samplerate)
    else:
        sound = Sound(path, ffmpeg.duration_s(path, name), SAMPLE_RATE_HZ, name)
    if sound.dur_s is not None:
        audio.check_length(path, sound.dur_s)
    return sound


def sound_files(path: Path) -> list[Path]:
    """The file itself, or every sound file in the folder, sorted by name. Raises UserError."""
    return audio.sound_in(path, SUFFIXES) if path.is_dir() else [path]


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
    """Blocks of sound as one signal, of which a window at a time is held. samples: how many were read."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._held = np.empty(0, np.float32)
        self._start = 0
        self.samples = 0

    def window(self, start: int) -> np.ndarray:
        """Up to 480000 samples from `start`, float32; fewer at the end. `start` never goes back."""
        parts = [self._held[start - self._start :]]
        while self.samples - start < WINDOW_SAMPLES and (block := next(self._blocks, None)) is not None:
            parts.append(block[max(0, start - self.samples) :])
            self.samples += len(block)
        self._held, self._start = np.concatenate(parts), start
        return self._held[:WINDOW_SAMPLES]


def _other_format(path: Path) -> str | None:
    """The name of a format that libsndfile does not read, None for all others."""
    with open(path, "rb") as file:
        begin = file.read(32)
        file.seek(-min(OGG_PAGE_BYTES, path.stat().st_size), os.SEEK_END)
        end = file.read()
    if begin[:4] == b"fLaC" and len(begin) == 32 and not begin[21] & 0xF and not any(begin[22:26]):
        return "FLAC that does not say its length"  # written into a pipe
    # Of joined Ogg files libsndfile reads the first; each has its number on its pages.
    last = end.rfind(b"OggS")
    if begin[:4] == b"OggS" and end[last + 14 : last + 18] != begin[14:18]:
        return "Ogg of several streams"
    for name, offset, mark in OTHER_FORMATS:
        if begin[offset : offset + len(mark)] == mark:
            return name
    return None
