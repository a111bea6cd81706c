"""The command itself: good and bad sound side by side, what it says and writes."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import srt
from rich.console import Console

from experiments.bundled import CHECKPOINT
from experiments.transcribe import Segment, Transcriber
from experiments.transcribe.__main__ import main
from experiments.transcribe.progress import Bar
from experiments.transcribe.transcriber import configuration, mechanisms
from harness.errors import ExitCode, UserError
from tests.experiments.bad_sound import bad_sound
from tests.experiments.conftest import CLIPS, ROOT
from tests.experiments.test_transcribe_ffmpeg import M4A, SOUND, StandIn

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


@pytest.mark.slow
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
        "phone.m4a": "is MPEG-4 audio or video, which ",
        "absent.wav": "does not exist",
    }.items():
        (line,) = [line for line in done.stderr.splitlines() if name in line and line.startswith("error: ")]
        assert complaint in line
    assert "2 files, 9.8 s of sound in" in done.stderr and f"× real time, into {out}; 8 failed" in done.stderr
    texts = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert texts == {"wide.srt", "wide.json", "silence.srt", "silence.json"}
    assert [cue.content for cue in srt.parse((out / "wide.srt").read_text())] == [WORDS]
    assert json.loads((out / "silence.json").read_text())["segments"] == []


@pytest.mark.slow
def test_text_goes_where_it_was_sent_though_a_terminal_shows_progress(tmp_path: Path) -> None:
    sound = tmp_path / "talk [b].flac"
    sound.write_bytes(HARBOUR.read_bytes())
    ours, theirs = pty.openpty()
    try:
        with open(tmp_path / "text", "w") as text:
            line = command(sound)
            running = subprocess.Popen(line, env=environment(), stdout=text, stderr=theirs)
            os.close(theirs)
            shown = _read_all(ours)
            assert running.wait(timeout=60) == ExitCode.OK
    finally:
        os.close(ours)
    assert (tmp_path / "text").read_text() == WORDS + "\n"
    assert "real time" in shown and sound.name in shown and WORDS not in shown


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
    assert main(["-", "-", "--format", "tsv"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[1].split("\t")[2] == WORDS
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no sound")))
    assert main(["-"]) == ExitCode.INPUT
    assert capsys.readouterr().err.startswith("error: standard input is not a sound file")


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
        (["--format", "srt", "--out", "{out}.srt"], ExitCode.USAGE, "looks like a file"),
        ([""], ExitCode.USAGE, "'' names no sound"),
        (["--model", ""], ExitCode.USAGE, "--model '' names no model"),
        (["--scope", "../config"], ExitCode.USAGE, "there is no scope '../config'"),
        (["--scope", "speculative"], ExitCode.USAGE, "such as optimized"),
        (["--batch", "100000000000"], ExitCode.MACHINE, "a smaller --batch"),
        (["--task", "translate"], ExitCode.USAGE, "English is spoken"),
        (["--batch", "2", "--previous-tokens", "9"], ExitCode.USAGE, "--long-form sequential"),
        (["--long-form", "cut", "--previous-tokens", "9"], ExitCode.USAGE, "--long-form sequential"),
    ],
)
def test_mistakes_are_said(
    arguments: list[str], code: ExitCode, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one.format(file=HARBOUR, clips=CLIPS, out=tmp_path / "out") for one in arguments]
    assert main([str(HARBOUR), *given]) == code
    found = capsys.readouterr().err
    assert said in found and "try: " in found and "Traceback" not in found


def test_an_empty_folder_name_is_not_the_folder_where_we_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(HARBOUR), "--out", ""])
    assert "'' names no folder" in capsys.readouterr().err


NAMES = ("-dash.flac", "-", "x" * 250 + ".flac", os.fsdecode(b"latin \xe9.flac"), "two\nlines.flac")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name != "-":
        shutil.copy(HARBOUR, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    asked = ["--out", "out", "--", name]
    for said in ("1 file, 6.8 s of sound", "1 file done before"):
        # - is standard input behind --, too.
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(HARBOUR.read_bytes())))
        assert main(asked) == ExitCode.OK
        assert capsys.readouterr().err.startswith(said)
    (text,) = (tmp_path / "out").glob("*.txt")
    assert text.read_text() == WORDS + "\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--word-timestamps"],
            "--word-timestamps has no effect on txt; the times of words are in vtt and json",
        ),
        (["--word-timestamps", "--format", "vtt"], None),
        (["--force"], "--force has no effect without --out: nothing is skipped then"),
        (["--compile", "--device", "cpu"], "--compile has no effect on a CPU"),
        (["--batch", "2", "--long-form", "sequential", "--previous-tokens", "9"], "--batch 1 would do"),
    ],
)
def test_no_option_without_effect_is_silent(
    arguments: list[str], said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(HARBOUR), *arguments]) == ExitCode.OK
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == (said is not None) and all(str(said) in note for note in notes)


def test_a_model_of_english_only_is_not_told_another_language(tmp_path: Path) -> None:
    for file in CHECKPOINT.iterdir():
        (tmp_path / file.name).symlink_to(file)
    rules = json.loads((CHECKPOINT / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "generation_config.json").write_text(json.dumps(rules | {"is_multilingual": False}))
    with pytest.raises(UserError, match="English only"):
        Transcriber(str(tmp_path), language="de")


def test_standard_streams_that_are_closed_are_said() -> None:
    for arguments, closed, said in (
        (["-"], "<&-", "no standard input"),
        ([HARBOUR], ">&-", "no standard output"),
    ):
        line = f"{shlex.join(command(*arguments))} {closed}"
        done = subprocess.run(line, shell=True, env=environment(), stderr=subprocess.PIPE, text=True)
        assert done.returncode in (ExitCode.INPUT, ExitCode.STORAGE) and said in done.stderr


def test_nothing_is_compiled_unasked() -> None:
    """Compiling takes longer than most files do."""
    cfg = configuration("bundled", "optimized")
    assert [mechanisms(cfg, asked).encoder for asked in (True, False)] == ["compile", "manual"]
    assert mechanisms(configuration("bundled", "cuda_graphs"), False).encoder == "eager"


def test_three_lines_of_python() -> None:
    (segment,) = Transcriber()(HARBOUR).segments
    assert isinstance(segment, Segment)
    assert (segment.text, segment.words) == (" " + WORDS, ())
    assert 0 <= segment.start < 0.5 < 6 < segment.end < 6.9
    assert segment.avg_logprob > -0.2 and segment.no_speech_prob < 0.01 and segment.tokens


def test_the_bar_knows_how_long_all_is_unless_a_header_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    sounds = [HARBOUR, tmp_path / "absent.wav", stand_in.file]
    for dur, shown in (("00:00:02.00", "3/9 s"), ("N/A", "3 s")):
        stand_in.says(SOUND.format(dur=dur), 2.0)
        bar = Bar(sounds, Console(file=io.StringIO(), force_terminal=True, width=200))
        bar.finding.join()
        bar.advance(HARBOUR, 3.0)
        with bar.progress.console.capture() as screen:
            bar.progress.console.print(bar.progress.make_tasks_table(bar.progress.tasks))
        assert f" {shown} " in screen.get()


def test_python_code_may_name_things_as_it_likes() -> None:
    """A path instead of its name, one file instead of several; what is no device is not a CPU."""
    transcriber = Transcriber(CHECKPOINT)
    assert [outcome.path for outcome in transcriber.many(str(HARBOUR))] == [HARBOUR]
    with pytest.raises(UserError, match="no device 'cuda:0'"):
        Transcriber(device="cuda:0")


def test_threads_can_share_a_transcriber() -> None:
    transcriber = Transcriber()
    with ThreadPoolExecutor(4) as pool:
        assert [found.text for found in pool.map(transcriber, [HARBOUR] * 8)] == [WORDS] * 8
