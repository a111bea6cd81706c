"""The published check of the pipeline: what it promises, that the README has its figures, bad options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.transcribe import joined
from experiments.transcribe.check import main
from experiments.transcribe.writers import FORMATS
from harness.errors import ExitCode
from tests.experiments.conftest import ROOT


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads((ROOT / "results" / "transcription.json").read_text())


def test_short_clips_are_as_good_in_every_format_and_both_ways(found: dict[str, Any]) -> None:
    clips = found["clips"]
    card = json.loads((ROOT / "experiments" / "checkpoint" / "evaluation.json").read_text())
    for way in ("sequential", "cut", *FORMATS):
        assert clips["wer"][way] <= card["words"]["all"]["wer"]
    assert clips["sequential_against_cut"] <= 0.01
    assert min(clips["same_as_transformers"].values()) >= 0.98


def test_long_sound_is_no_worse(found: dict[str, Any]) -> None:
    short, long = found["clips"]["wer"], found["joined"]
    assert long["dur_s"] >= 20 * 60
    for way in ("sequential", "cut"):
        assert long["wer"][way] <= short[way] + 0.01
        assert long["most_words_lost_in_a_row"][way] < 5
        assert long["most_words_added_in_a_row"][way] < 5
        assert long["times_out_of_order"][way] == 0
    assert long["same_as_transformers"]["as Whisper"] >= 0.98, "where it seeks as transformers does"


def test_the_readme_has_these_figures(found: dict[str, Any]) -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    wer = found["joined"]["wer"]
    assert f"give {found['clips']['wer']['cut']:.2%} WER in every format" in readme
    assert f"{wer['sequential']:.1%} window after window, {wer['cut']:.1%} cut" in readme
    assert f"{wer['transformers']:.1%} by transformers" in readme


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "x"])
def test_a_length_that_no_file_has_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([f"--minutes={minutes}"])
    assert caught.value.code == ExitCode.USAGE and "a number above 0" in capsys.readouterr().err


def test_a_file_that_can_not_be_written_is_said_before_minutes_of_work(tmp_path: Path) -> None:
    for file, said in ((tmp_path, "is a folder"), ("/proc/none/found.json", "can't be written")):
        line = [sys.executable, "-m", "experiments.transcribe.check", "--json", str(file)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == ExitCode.STORAGE and done.stdout == ""
        assert done.stderr.startswith(f"error: {file} {said}") and "try: --json" in done.stderr


def test_clips_that_are_not_there_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joined, "HELD_OUT", tmp_path / "none")
    assert main([]) == ExitCode.INPUT
    assert "none is missing" in capsys.readouterr().err
