"""Sound files to 16 kHz mono windows of 30 s, and clear words for files that can't be used.

Importable without torch. `check` reads with soundfile only (fast, in the parent process); `load` resamples
with librosa.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from harness.errors import ExitCode, UserError

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 30
WINDOW_SAMPLES = SAMPLE_RATE_HZ * WINDOW_S
SHORTEST_S = 0.1  # a syllable; below it there is nothing to transcribe
LOUDEST = 100.0  # full scale is 1; whole numbers that were written as floats make models invent words
SUFFIXES = frozenset(f".{name.lower()}" for name in soundfile.available_formats()) | {".opus", ".oga"}


@dataclass(frozen=True)
class Clip:
    """One sound file: `samples` float32 [n] at 16 kHz mono, and its text, see `reference`."""

    source: str
    samples: np.ndarray
    reference: str | None

    @property
    def dur_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    def windows(self) -> np.ndarray:
        """The clip in 30 s windows, the last padded with zeros: float32 [windows, 480000]."""
        count = max(1, -(-len(self.samples) // WINDOW_SAMPLES))
        padded = np.zeros(count * WINDOW_SAMPLES, dtype=np.float32)
        padded[: len(self.samples)] = self.samples
        return padded.reshape(count, WINDOW_SAMPLES)


def sound_files(path: str | Path) -> list[Path]:
    """The file itself, or every sound file in the folder, sorted by name."""
    path = Path(path).expanduser()
    if not path.exists():
        raise unusable(path, "does not exist", "audio.path=FILE or FOLDER of sound files")
    if path.is_file():
        return [path]
    return sound_in(path)


def sound_in(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """The files whose names end so, in lower case, sorted by name. Raises UserError if there are none."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in suffixes)
    if not files:
        raise unusable(folder, "holds no sound file", f"a folder with files like {_known_formats()}")
    return files


def check(path: str | Path, max_seconds: float) -> list[str]:
    """Read every file once and raise UserError for what can't be transcribed; returns notes on odd ones.

    Lengths are checked from the headers first, so a file of hours is refused without being read.
    """
    files = sound_files(path)
    headers = [header(file) for file in files]
    total_s = sum(info.duration for info in headers)
    if total_s > max_seconds:
        raise UserError(
            f"{path}: {_duration(total_s)} of audio, and a profile takes at most {_duration(max_seconds)}",
            "audio.path=a shorter clip (one 30 s window shows it all), or audio.max_seconds="
            f"{int(total_s) + 1} if you mean it",
            ExitCode.INPUT,
        )
    notes = []
    for file, info in zip(files, headers, strict=True):
        _check_samples(file, info)
        reference(file)
        if info.channels > 1:
            notes.append(f"{file.name}: {info.channels} channels, mixed down to one")
        if info.samplerate != SAMPLE_RATE_HZ:
            notes.append(f"{file.name}: {info.samplerate} Hz, resampled to {SAMPLE_RATE_HZ} Hz")
    return notes


def load(path: str | Path) -> list[Clip]:
    """Load a file or a folder with librosa: mono, 16 kHz, float32 in [-1, 1]. Raises UserError."""
    import librosa  # slow to import, and the parent process never loads audio

    clips = []
    for file in sound_files(path):
        samples, _ = librosa.load(file, sr=SAMPLE_RATE_HZ, mono=True)
        clips.append(Clip(file.name, samples.astype(np.float32, copy=False), reference(file)))
    return clips


def reference(file: Path) -> str | None:
    """What is said in a sound file: its .txt of the same name, None without one. Raises UserError."""
    text = file.with_suffix(".txt")
    if not text.is_file():
        return None
    try:
        return text.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as problem:
        raise unusable(
            text, f"is not text in UTF-8 ({problem.reason} at byte {problem.start})", "the words in UTF-8"
        ) from None


def total_seconds(clips: Sequence[Clip]) -> float:
    return sum(clip.dur_s for clip in clips)


def header(file: Path) -> soundfile._SoundFileInfo:
    """What libsndfile says of a sound file without reading it. Raises UserError."""
    if file.stat().st_size == 0:
        raise unusable(file, "is empty (0 bytes)", "a file that holds sound")
    if file.suffix.lower() == ".raw":  # soundfile goes by this name
        hint = f"ffmpeg -f s16le -ar RATE_HZ -ac CHANNELS -i {file.name} {file.stem}.flac"
        raise unusable(file, "is raw sound, which says neither its rate nor its format", hint)
    try:
        info = soundfile.info(os.fsencode(file), verbose=True)
    except (soundfile.LibsndfileError, RuntimeError) as problem:
        raise unusable(
            file, f"is not a sound file that can be read ({reason(problem)})", _known_formats()
        ) from None
    # libsndfile reads what is left of a cut file without complaint and notes it in its log only.
    cut = re.search(r"^\s*data\s*: (\d+) \(should be", info.extra_info, re.MULTILINE)
    if cut and not _is_of_a_stream(int(cut[1])):
        raise unusable(file, "is truncated: its header promises more sound than it holds", "the whole file")
    return info


def _is_of_a_stream(data_bytes: int) -> bool:
    """Whether a WAV says what programs in a pipe write, which don't know: ffmpeg, sox, arecord."""
    return data_bytes == 0xFFFFFFFF or 0x7FFFF000 <= data_bytes <= 0x80000000


def promised_frames(file: soundfile.SoundFile | soundfile._SoundFileInfo) -> int:
    """How many samples of each channel there have to be; 0 for MP3, of which most headers do not say it."""
    return 0 if file.format == "MP3" else int(file.frames)


def _check_samples(file: Path, info: soundfile._SoundFileInfo) -> None:
    check_length(file, info.duration)
    try:
        samples, _ = soundfile.read(str(file), dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as problem:
        raise unusable(file, f"is damaged or truncated ({reason(problem)})", "the whole file") from None
    if len(samples) < (promised := promised_frames(info)):
        what = f"is truncated: {len(samples)} of {promised} samples can be read"
        raise unusable(file, what, "the whole file")
    check_values(file, samples)
    if not samples.any():
        raise unusable(file, "holds silence only: every sample is zero", "a recording with speech in it")


def check_values(file: Path, samples: np.ndarray) -> None:
    """UserError for what is no sound."""
    if not np.isfinite(samples).all():
        raise unusable(file, "holds NaN or infinite samples", "a file whose samples are numbers")
    if (peak := float(np.abs(samples).max(initial=0.0))) > LOUDEST:
        what = f"holds samples as large as {peak:.3g}, and full scale is 1"
        raise unusable(file, what, "a file whose samples are between -1 and 1")


def check_length(file: Path, dur_s: float) -> None:
    """UserError for sound in which nothing can be said."""
    if dur_s < SHORTEST_S:
        what = f"lasts {dur_s:.3f} s; nothing can be said in that"
        raise unusable(file, what, f"at least {SHORTEST_S} s")


def reason(problem: Exception) -> str:
    """What libsndfile says went wrong."""
    return str(getattr(problem, "error_string", problem)).strip().rstrip(".")


def _known_formats() -> str:
    return "WAV, FLAC, OGG or MP3"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {secs:02d} s"


def unusable(path: Path, what: str, instead: str) -> UserError:
    """`path` and what is wrong with it, and what to give instead."""
    return UserError(f"{path} {what}", instead, ExitCode.INPUT)
