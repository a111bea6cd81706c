"""What libsndfile does not read, through the program ffmpeg: mono at 16 kHz, a block at a time.

ffmpeg mixes channels by their places, as openai-whisper has it do: of two the mean, of 5.1 mostly the front,
where people speak, and nothing of the subwoofer.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ, check_length, unusable
from harness.errors import ExitCode, UserError

BLOCK_BYTES = 10 * SAMPLE_RATE_HZ * 2
MISSING_S = 1.0  # headers round, and codecs pad


def duration_s(path: Path, format_name: str) -> float | None:
    """How long a file lasts by its header; None if that does not say, as in what a browser records.

    Raises UserError without ffmpeg, and for a file without sound.
    """
    # Without an output it reads the header, and complains of that.
    look = [*_read(path, format_name), "-hide_banner"]
    done = subprocess.run(look, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    if not re.search(r"^Input #0", said, re.MULTILINE):
        what = f"is {format_name}, which ffmpeg can't read ({_last_line(said, path)})"
        raise unusable(path, what, "the whole file")
    if not re.search(r"^ *Stream #.*: Audio: ", said, re.MULTILINE):
        raise unusable(path, f"is {format_name} without sound", "a file with sound in it")
    found = re.search(r"^ *Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", said, re.MULTILINE)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def blocks(path: Path, format_name: str, dur_s: float | None) -> Iterator[np.ndarray]:
    """The whole file as mono float32 at 16 kHz. ffmpeg waits until a block is wanted, and ends with this.

    dur_s: what the header says. Raises UserError for a file that is damaged or cut short.
    """
    decode = [*_read(path, format_name), "-v", "error"]
    decode += ["-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-f", "s16le", "-"]
    samples = 0
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            decode, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        ) as program,
    ):
        assert program.stdout is not None
        try:
            while raw := program.stdout.read(BLOCK_BYTES):
                block = np.frombuffer(raw, "<i2", count=len(raw) // 2)
                samples += len(block)
                yield block.astype(np.float32) / 32768
            failed = program.wait() != 0
        finally:
            program.kill()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()
    heard_s = samples / SAMPLE_RATE_HZ
    if failed:
        raise unusable(path, f"is damaged ({_last_line(said, path)})", "the whole file")
    # ffmpeg complains of small things, too, and the pictures of a video may go on after its sound.
    if said and dur_s is not None and heard_s < dur_s - MISSING_S:
        what = f"is truncated: {heard_s:.1f} of {dur_s:.1f} s can be read ({_last_line(said, path)})"
        raise unusable(path, what, "the whole file")
    check_length(path, heard_s)


def _read(path: Path, format_name: str) -> list[str]:
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError(
            f"{path} is {format_name}, which needs ffmpeg, and there is none here",
            f"apt-get install ffmpeg (or conda, brew), or elsewhere: ffmpeg -i {path.name} {path.stem}.flac",
            ExitCode.INPUT,
        )
    # file: before a name that could be taken for an option or a protocol.
    return [program, "-nostdin", "-i", f"file:{path}"]


def _last_line(said: str, path: Path) -> str:
    last = said.strip().splitlines()[-1:] or ["ffmpeg does not say why"]
    return re.sub(r"^\[\S+ @ 0x\w+\] ", "", last[0]).removeprefix(f"file:{path}: ")
