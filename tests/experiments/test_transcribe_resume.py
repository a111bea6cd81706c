"""What is done is not done again, and what is of another sound is not overwritten."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from experiments.transcribe.__main__ import main
from experiments.transcribe.resume import RECORD, Done, targets
from harness.errors import ExitCode
from tests.experiments.conftest import CLIPS
from tests.experiments.test_transcribe_command import HARBOUR, WORDS, command, environment

KERNELS = CLIPS / "kernels.flac"
NOTHING_ELSE = "1 file done before (--force does them again)\n"


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
    assert said() == NOTHING_ELSE
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


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """Two folders with a file of the same name each, one with another beside it."""
    for name, clip in (("mon/01", HARBOUR), ("tue/01", KERNELS), ("tue/02", KERNELS)):
        path = tmp_path / f"{name}.flac"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(clip, path)
    return tmp_path


def test_the_text_of_another_sound_is_kept_and_the_others_go_on(
    days: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mon, tue, out = days / "mon", days / "tue", days / "out"
    assert main([str(mon), "--out", str(out)]) == ExitCode.OK
    capsys.readouterr()
    for also in ("1 file, 9.3 s of sound", "1 file done before"):
        assert main([str(tue), "--out", str(out)]) == ExitCode.STORAGE
        said = capsys.readouterr().err
        assert f"{out / '01.txt'} is the text of {mon / '01.flac'}, not of {tue / '01.flac'}" in said
        assert "try: another --out" in said and also in said and said.endswith("; 1 failed\n")
    assert (out / "01.txt").read_text() == WORDS + "\n"
    assert main([str(tue), "--out", str(out), "--force"]) == ExitCode.OK
    assert (out / "01.txt").read_text() == (out / "02.txt").read_text() != WORDS + "\n"
    assert main([str(mon), "--out", str(out)]) == ExitCode.STORAGE, "now it is the other's"


def test_a_file_of_unknown_origin_is_kept(days: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = days / "mon" / "01.txt"
    mine.write_text("my own words")
    assert main([str(days / "mon"), "--out", str(days / "mon")]) == ExitCode.STORAGE
    assert "not known to be of" in capsys.readouterr().err and mine.read_text() == "my own words"


def test_one_sound_by_several_paths_is_one_sound(days: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (days / "link").symlink_to("mon")
    asked = [str(days / "mon"), "--out", str(days / "out"), str(days / "tue" / ".." / "mon" / "01.flac")]
    assert main(asked) == ExitCode.OK
    assert "1 file, " in capsys.readouterr().err
    assert main([str(days / "link"), "--out", str(days / "out")]) == ExitCode.OK
    assert capsys.readouterr().err == NOTHING_ELSE


def test_files_of_one_call_have_outputs_of_their_own_or_are_refused(
    days: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(KERNELS, days / "mon" / "01.ogg")
    assert main([str(days / "mon"), "--out", str(days / "out")]) == ExitCode.OK
    assert (
        (days / "out" / "01.flac.txt").read_text()
        == WORDS + "\n"
        != (days / "out" / "01.ogg.txt").read_text()
    )
    both = [str(days / "mon" / "01.flac"), str(days / "tue")]
    assert main([*both, "--out", str(days / "out")]) == ExitCode.USAGE
    assert "would have the same outputs" in capsys.readouterr().err
    assert main(both) == ExitCode.OK, "standard output takes all"
    assert capsys.readouterr().out.startswith(WORDS)


def test_each_output_has_a_record_of_its_own(days: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(days / "mon"), "--out", str(days / "out"), "--format"]
    for format_, options in (("json", []), ("vtt", ["--word-timestamps"]), ("json", ["--word-timestamps"])):
        assert main([*asked, format_, *options]) == ExitCode.OK
        assert "1 file, 6.8 s" in capsys.readouterr().err
    assert "<c>" in (days / "out" / "01.vtt").read_text()
    assert json.loads((days / "out" / "01.json").read_text())["segments"][0]["words"]


def test_standard_input_is_known_by_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pipe(clip: Path) -> int:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(clip.read_bytes())))
        return main(["-", "--out", str(tmp_path)])

    assert pipe(HARBOUR) == ExitCode.OK
    capsys.readouterr()
    assert pipe(HARBOUR) == ExitCode.OK
    assert capsys.readouterr().err == NOTHING_ELSE
    assert pipe(KERNELS) == ExitCode.STORAGE
    assert "is the text of standard input (SHA-256 " in capsys.readouterr().err
    assert (tmp_path / "stdin.txt").read_text() == WORDS + "\n"


def test_calls_beside_each_other_keep_each_other_s_records(days: Path) -> None:
    (mon,), (_, second) = targets([days / "mon" / "01.flac"]), targets(sorted((days / "tue").iterdir()))
    one, other = Done(days / "out", ["txt"], {}), Done(days / "out", ["txt"], {})
    one.write(mon, {"txt": "one"})
    other.write(second, {"txt": "two"})
    later = Done(days / "out", ["txt"], {})
    assert later.has(mon) and later.has(second)
    assert not Done(days / "out", ["txt"], {"batch": 2}).has(mon)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"01.txt": 5}', '{"01.txt": {"sound": []}}'])
def test_a_record_that_says_nothing_is_no_record(content: str, days: Path) -> None:
    (days / "out").mkdir()
    (days / "out" / RECORD).write_text(content)
    (days / "out" / "01.txt").write_text("of whom?")
    done, (mon,) = Done(days / "out", ["txt"], {}), targets([days / "mon" / "01.flac"])
    assert not done.has(mon) and "not known" in str(done.in_the_way(mon))
    done.write(mon, {"txt": "text"})
    assert done.has(mon) and done.in_the_way(mon) is None
