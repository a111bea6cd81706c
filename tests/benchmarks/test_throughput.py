"""The benchmark of the pipeline on small random weights: rows, table, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.throughput import HEADER, MARKS, main, table
from harness.errors import ExitCode, UserError
from tests.experiments.conftest import ROOT


@pytest.mark.slow
def test_rows_are_measured_kept_and_shown(tmp_path: Path) -> None:
    into = tmp_path / "throughput.json"
    asked = [
        "--model",
        "tiny_random",
        "--windows",
        "3",
        "--repeat",
        "2",
        "--device",
        "cpu",
        "--json",
        str(into),
    ]
    assert main([*asked, "--batch", "1", "2"]) == ExitCode.OK
    rows = json.loads(into.read_text())
    assert [(row["batch"], row["source"]) for row in rows] == [
        (1, "pcm"),
        (1, "files"),
        (2, "pcm"),
        (2, "files"),
    ]
    assert all(row["audio_s"] == 90 and len(row["times_s"]) == 2 for row in rows)
    assert main([*asked, "--batch", "2", "--source", "pcm"]) == ExitCode.OK
    assert len(json.loads(into.read_text())) == 4, "a new row takes the place of the old one"
    assert main([*asked, "--batch", "2", "--source", "pcm", "--once"]) == ExitCode.OK

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    assert main(["--json", str(into), "--update", str(readme)]) == ExitCode.OK
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "tiny_random" in text and f"| {' | '.join(HEADER)} |" in text
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4


def test_factors_are_medians_and_absent_ones_are_no_numbers() -> None:
    setting = {"model": "m", "scope": "s", "machine": "x", "date": "d", "code": "c"}
    row = {"batch": 8, "source": "pcm", "audio_s": 300.0, "times_s": [1.0, 2.0, 6.0], "idle_share": 0.0312}
    shown = table([row | setting, row | setting | {"model": "other"}, row | setting])
    assert "| 8 | 150× (50–300) | – | 3.1% | – | 200.00 |" in shown
    with pytest.raises(UserError, match="nothing has been measured"):
        table([])


def test_the_readme_has_a_place_for_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index(MARKS[0]) < readme.index(MARKS[1])
    assert main(["--json", str(tmp_path / "none.json"), "--update", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "nothing has been measured" in capsys.readouterr().err
