"""The command itself: good and bad sound side by side, what it says and writes, resume, interruption."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import srt

from experiments.transcribe.__main__ import main
from harness.errors import ExitCode
from tests.experiments.bad_sound import bad_sound
from tests.experiments.conftest import CLIPS, ROOT
from tests.experiments.test_transcribe_reading import M4A

HARBOUR = CLIPS / "harbour.flac"
WORDS = "The quick brown fox jumps over the lazy dog while seven ships sail slowly into the harbour at dawn."


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "experiments.transcribe", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of one file of each kind."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    pcm, rate_hz = soundfile.read(HARBOUR, dtype="float32")
    wide = np.zeros((len(pcm) * 3, 8), np.float32)
    wide[:, 5] = np.repeat(pcm, 3)
    soundfile.write(folder / "wide.wav", wide, 3 * rate_hz)
    soundfile.write(folder / "silence.wav", np.zeros(16_000 * 3, np.float32), 16_000)
    for kind in ("empty", "text", "nan", "truncated", "truncated-flac", "short"):
        bad_sound(folder, kind)
    (folder / "phone.m4a").write_bytes(M4A)
    return folder


def test_bad_files_are_said_and_the_others_done(sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "deep"
    formats = ("--format", "srt", "--format", "json")
    line = command(sounds, tmp_path / "absent.wav", "--out", out, *formats, "--batch", 2)
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == ExitCode.INPUT, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    for name, complaint in {
        "empty.wav": "is empty",
        "text.wav": "is not a sound file",
        "nan.wav": "NaN",
        "truncated.wav": "truncated",
        "truncated.flac": "truncated",
        "short.wav": "0.010 s",
        "phone.m4a": "is MPEG-4 audio or video, ",
        "absent.wav": "does not exist",
    }.items():
        (line,) = [line for line in done.stderr.splitlines() if name in line and line.startswith("error: ")]
        assert complaint in line
    assert "2 files, 9.8 s of sound in" in done.stderr and "× real time; 8 failed" in done.stderr
    texts = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert texts == {"wide.srt", "wide.json", "silence.srt", "silence.json"}
    assert [cue.content for cue in srt.parse((out / "wide.srt").read_text())] == [WORDS]
    assert json.loads((out / "silence.json").read_text())["segments"] == []


def test_what_is_done_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = tmp_path / "a.wav"
    pcm, rate_hz = soundfile.read(HARBOUR, dtype="float32")
    soundfile.write(sound, pcm, rate_hz)
    asked = [str(sound), "--out", str(tmp_path / "out"), "--word-timestamps", "--format", "json"]

    def said() -> str:
        assert main(asked) == ExitCode.OK
        return capsys.readouterr().err

    assert "1 file, 6.8 s of sound in" in said()
    (segment,) = json.loads((tmp_path / "out" / "a.json").read_text())["segments"]
    assert "".join(word["word"] for word in segment["words"]) == segment["text"]
    times = [time for word in segment["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times) and segment["start"] <= times[0] < times[-1] <= segment["end"]
    assert said() == "1 file done before (--force does them again)\n"
    asked[-1] = "txt"
    assert "1 file, 6.8 s" in said(), "a format that is missing is made"
    asked.append("--force")
    assert "1 file, 6.8 s" in said()
    asked.pop()
    soundfile.write(sound, pcm[: len(pcm) // 2], rate_hz)
    assert "1 file, 3.4 s" in said(), "other sound is other text"


@pytest.mark.slow
def test_interrupted_in_the_middle_of_a_folder_what_is_done_is_kept(tmp_path: Path) -> None:
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    for n in range(40):
        (sounds / f"{n:02d}.flac").write_bytes(HARBOUR.read_bytes())
    line = command(sounds, "--out", out)
    running = subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 200
        while not list(out.glob("*.txt")):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == ExitCode.INTERRUPTED
    assert said == "interrupted: what is done is kept; the same command goes on from there\n"
    texts = sorted(out.glob("*.txt"))
    assert 0 < len(texts) < 40 and {text.read_text() for text in texts} == {WORDS + "\n"}
    for path in sorted(sounds.iterdir())[len(texts) + 1 :]:
        path.unlink()
    assert main([str(sounds), "--out", str(out)]) == ExitCode.OK
    assert len(list(out.glob("*.txt"))) == len(texts) + 1


@pytest.mark.slow
def test_text_goes_where_it_was_sent_though_a_terminal_shows_progress(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with open(tmp_path / "text", "w") as text:
            line = command(HARBOUR)
            running = subprocess.Popen(line, env=environment(), stdout=text, stderr=theirs)
            os.close(theirs)
            shown = _read_all(ours)
            assert running.wait(timeout=60) == ExitCode.OK
    finally:
        os.close(ours)
    assert (tmp_path / "text").read_text() == WORDS + "\n"
    assert "real time" in shown and WORDS not in shown


def _read_all(descriptor: int) -> str:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # on Linux, how the other end of a terminal says that it is closed
            return found.decode()
        if not piece:
            return found.decode()
        found += piece


def test_standard_input_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(HARBOUR.read_bytes())))
    assert main(["-", "--format", "tsv"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[1].split("\t")[2] == WORDS


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--out", "{file}/out"], ExitCode.STORAGE, "can't write to"),
        (["--out", "/proc/out"], ExitCode.STORAGE, "can't write to /proc/out"),
        (["--scope", "nothing"], ExitCode.USAGE, "there is no scope 'nothing'"),
        (["--scope", "baseline"], ExitCode.USAGE, "generate"),
        (["--batch", "0"], ExitCode.USAGE, "--batch 0"),
        (["--model", "tiny_random"], ExitCode.INPUT, "no vocabulary"),
        (["--model", "{file}"], ExitCode.INPUT, "could not be loaded"),
        (["--language", "xx"], ExitCode.USAGE, "--language xx is not spoken"),
        (["--previous-tokens", "400"], ExitCode.USAGE, "0 to 223"),
        (["--format", "txt", "--format", "srt"], ExitCode.USAGE, "--out FOLDER"),
        (["{clips}", "--format", "srt"], ExitCode.USAGE, "--out FOLDER"),
        (["{file}", "{clips}/../clips/harbour.flac", "--out", "{out}"], ExitCode.USAGE, "same outputs"),
    ],
)
def test_mistakes_are_said(
    arguments: list[str], code: ExitCode, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one.format(file=HARBOUR, clips=CLIPS, out=tmp_path / "out") for one in arguments]
    assert main([str(HARBOUR), *given]) == code
    found = capsys.readouterr().err
    assert said in found and "try: " in found and "Traceback" not in found


def test_three_lines_of_python() -> None:
    from experiments.transcribe import Segment, Transcriber

    (segment,) = Transcriber()(HARBOUR).segments
    assert isinstance(segment, Segment)
    assert (segment.text, segment.words) == (" " + WORDS, ())
    assert 0 <= segment.start < 0.5 < 6 < segment.end < 6.9
    assert segment.avg_logprob > -0.2 and segment.no_speech_prob < 0.01 and segment.tokens
