"""What libsndfile does not read: through a stand-in that speaks as ffmpeg does, and through ffmpeg itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.audio import SAMPLE_RATE_HZ
from experiments.transcribe.pipeline import Pipeline
from experiments.transcribe.reading import open_sound
from harness.errors import ExitCode, UserError
from tests.experiments.scripted import Scripted, noise
from tests.experiments.test_transcribe_reading import read
from tests.experiments.test_transcribe_together import DECODE, length

M4A = b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00" + bytes(64)
WEBM = b"\x1a\x45\xdf\xa3" + bytes(64)
STAND_IN = """#!{python}
import json, os, sys, time
script = json.load(open({script!r}))
name = sys.argv[sys.argv.index("-i") + 1].removeprefix("file:")
assert "file:" + name in sys.argv and open(name, "rb").read()
if sys.argv[-1] != "-":
    sys.exit(script["header"] + "At least one output file must be specified")
open({script!r} + ".pid", "w").write(str(os.getpid()))
pcm = open({script!r} + ".pcm", "rb").read()
sys.stdout.buffer.write(pcm)
while script["endless"]:
    sys.stdout.buffer.write(pcm)
sys.stderr.write(script["complaint"])
sys.exit(script["code"])
"""
SOUND = "Input #0, mov, from 'a.m4a':\n  Duration: {dur}, start: 0.0\n  Stream #0:0(und): Audio: aac\n"
TWO_SECONDS = SOUND.format(dur="00:00:02.00")


class StandIn:
    """An `ffmpeg` that does what its script says."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / "script"
        self.file = folder / "a.m4a"
        self.file.write_bytes(M4A)
        self.pcm = (noise(2.0).clip(-1, 1) * 32767).astype("<i2")
        program = folder / "ffmpeg"
        program.write_text(STAND_IN.format(python=sys.executable, script=str(self._script)))
        program.chmod(0o755)

    def says(
        self, header: str, seconds: float, complaint: str = "", code: int = 0, endless: bool = False
    ) -> None:
        script = {"header": header, "complaint": complaint, "code": code, "endless": endless}
        self._script.write_text(json.dumps(script))
        self._script.with_suffix(".pcm").write_bytes(self.pcm[: round(seconds * SAMPLE_RATE_HZ)].tobytes())

    def runs(self) -> bool:
        return Path("/proc", self._script.with_suffix(".pid").read_text()).exists()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return StandIn(tmp_path)


def piped_flac(folder: Path) -> Path:
    """A second whose header leaves open how long it is."""
    soundfile.write(folder / "a.flac", noise(1.0), SAMPLE_RATE_HZ)
    whole = bytearray((folder / "a.flac").read_bytes())
    whole[21] &= 0xF0
    whole[22:26] = bytes(4)
    (folder / "a.flac").write_bytes(whole)
    return folder / "a.flac"


def joined_ogg(folder: Path) -> Path:
    """Two seconds in two pieces."""
    for name in ("1.ogg", "2.ogg"):
        soundfile.write(folder / name, noise(1.0), SAMPLE_RATE_HZ)
    (folder / "a.ogg").write_bytes((folder / "1.ogg").read_bytes() + (folder / "2.ogg").read_bytes())
    return folder / "a.ogg"


@pytest.fixture
def real() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        pytest.skip("NOT TESTED with a real ffmpeg: none here (apt-get install ffmpeg)")
    return found


def test_without_ffmpeg_formats_are_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(M4A)
    (tmp_path / "a.webm").write_bytes(WEBM)
    others = {piped_flac(tmp_path): "FLAC that does not say", joined_ogg(tmp_path): "Ogg of several streams"}
    for path, said in ({tmp_path / "a.m4a": "MPEG-4", tmp_path / "a.webm": "WebM"} | others).items():
        with pytest.raises(UserError, match=said) as caught:
            open_sound(path)
        assert caught.value.exit_code == ExitCode.INPUT and "apt-get install ffmpeg" in caught.value.hint


@pytest.mark.parametrize(
    ("made", "seconds", "said"),
    [(piped_flac, 1, "does not say its length"), (joined_ogg, 2, "several streams")],
)
def test_where_libsndfile_would_lose_some_ffmpeg_reads(
    made: Callable[[Path], Path], seconds: int, said: str, real: str, tmp_path: Path
) -> None:
    sound = open_sound(made(tmp_path))
    assert sound.format_name is not None and said in sound.format_name
    assert len(read(sound.path)) == pytest.approx(seconds * SAMPLE_RATE_HZ, abs=300)


# A browser does not know, while it records, how long it will.
@pytest.mark.parametrize(("dur", "dur_s"), [("00:00:02.00", 2.0), ("01:02:03.50", 3723.5), ("N/A", None)])
def test_samples_and_length_are_ffmpegs(dur: str, dur_s: float | None, stand_in: StandIn) -> None:
    stand_in.says(SOUND.format(dur=dur), 2.0)
    assert open_sound(stand_in.file).dur_s == dur_s
    assert np.array_equal(read(stand_in.file), stand_in.pcm.astype(np.float32) / 32768)


@pytest.mark.parametrize("sequential", [True, False])
def test_where_the_header_does_not_say_it_lasts_as_long_as_was_read(
    sequential: bool, stand_in: StandIn
) -> None:
    stand_in.says(SOUND.format(dur="N/A"), 1.5)
    (outcome,) = Pipeline(Scripted(length), DECODE, "en", sequential).transcribe([stand_in.file])
    assert outcome.transcript is not None and outcome.transcript.dur_s == 1.5


@pytest.mark.parametrize(
    ("header", "seconds", "complaint", "code", "said"),
    [
        ("file:{file}: Invalid data\n", 2, "", 0, "is MPEG-4 .*, which ffmpeg can't read"),
        (TWO_SECONDS.replace("Audio: aac", "Video: h264"), 2, "", 0, "without sound"),
        (SOUND.format(dur="00:00:00.05"), 2, "", 0, "lasts 0.050 s"),
        (SOUND.format(dur="N/A"), 0, "", 0, "lasts 0.000 s"),
        (TWO_SECONDS, 0.5, "warning\nError: broken\n", 1, r"is damaged \(Error: broken\)"),
        (TWO_SECONDS, 0.5, "", 1, r"is damaged \(ffmpeg does not say why\)"),
        (
            TWO_SECONDS,
            0.5,
            "[mov @ 0x5f] partial file\n",
            0,
            r"truncated: 0.5 of 2.0 s can be read \(partial file\)",
        ),
    ],
)
def test_what_can_not_be_used_is_said(
    header: str, seconds: float, complaint: str, code: int, said: str, stand_in: StandIn
) -> None:
    stand_in.says(header.format(file=stand_in.file), seconds, complaint, code)
    with pytest.raises(UserError, match=said) as caught:
        read(stand_in.file)
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("seconds", "complaint"), [(0.5, ""), (2.0, "a frame is odd\n")], ids=["short sound of a video", "whole"]
)
def test_what_is_only_odd_is_read(seconds: float, complaint: str, stand_in: StandIn) -> None:
    stand_in.says(TWO_SECONDS, seconds, complaint)
    assert len(read(stand_in.file)) == seconds * SAMPLE_RATE_HZ


def test_ffmpeg_ends_with_whoever_reads(stand_in: StandIn) -> None:
    """It also waits until a block is wanted: this one never ends."""
    stand_in.says(TWO_SECONDS, 2.0, endless=True)
    blocks = open_sound(stand_in.file).blocks()
    assert len(next(blocks)) == 10 * SAMPLE_RATE_HZ and stand_in.runs()
    blocks.close()
    assert not stand_in.runs()


@pytest.mark.parametrize("name", ["-i.mkv", "a:b.mkv", "pipe:0.mkv", "100%d.mkv", "two\nlines 'é.mkv"])
def test_any_name_will_do(name: str, real: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(real, noise(1.0)[:, None], tmp_path / name, "pcm_s16le")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path(name))) == SAMPLE_RATE_HZ


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7, 8])
def test_any_number_of_channels_becomes_one(channels: int, real: str, tmp_path: Path) -> None:
    pcm = np.stack([noise(2.0, seed=n) for n in range(channels)], axis=1)
    encode(real, pcm, tmp_path / "a.mkv", "pcm_s16le")
    found = read(tmp_path / "a.mkv")
    assert len(found) == len(pcm)
    if channels <= 2:
        assert np.abs(found - pcm.mean(axis=1)).max() < 1e-3
    else:  # by their places: how much of each is not ours to say, but the first are in front
        share = np.linalg.lstsq(pcm, found)[0]
        assert share[:2].min() >= share.max() / 2 > 0.05


def test_a_recording_without_a_length_and_one_that_is_cut(real: str, tmp_path: Path) -> None:
    encode(real, noise(5.0)[:, None], tmp_path / "a.mkv", "pcm_s16le")
    live = ["-c:a", "flac", "-f", "matroska", "-live", "1", "-"]
    piped = [real, "-v", "error", "-i", str(tmp_path / "a.mkv"), *live]
    (tmp_path / "live.webm").write_bytes(subprocess.run(piped, check=True, capture_output=True).stdout)
    assert open_sound(tmp_path / "live.webm").dur_s is None
    assert len(read(tmp_path / "live.webm")) == 5 * SAMPLE_RATE_HZ
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"truncated: 2.\d of 5.0 s"):
        read(tmp_path / "cut.mkv")


def encode(program: str, pcm: np.ndarray, path: Path, codec: str) -> None:
    soundfile.write(path.with_name("source.wav"), pcm, SAMPLE_RATE_HZ)
    line = [program, "-v", "error", "-i", "source.wav", "-c:a", codec, "file:" + path.name]
    subprocess.run(line, cwd=path.parent, check=True, stdin=subprocess.DEVNULL)
