"""The benchmark of the pipeline on small random weights: rows, table, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.throughput import HEADER, MARKS, idle_shares, main, table
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


ROW = {
    "batch": 8,
    "source": "pcm",
    "model": "m",
    "scope": "s",
    "machine": "x",
    "date": "d",
    "code": "c",
    "audio_s": 300.0,
    "times_s": [1.0, 2.0, 6.0],
    "idle_share": 0.0312,
}


def test_factors_are_medians_and_absent_ones_are_no_numbers() -> None:
    shown = table([ROW, ROW | {"model": "other"}, ROW])
    assert "| 8 | 150× (50–300) | – | 3.1% | – | 200.00 |" in shown
    with pytest.raises(UserError, match="nothing has been measured"):
        table([])


def test_the_readme_has_a_place_for_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index(MARKS[0]) < readme.index(MARKS[1])
    assert main(["--json", str(tmp_path / "none.json"), "--update", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "nothing has been measured" in capsys.readouterr().err


def test_a_pass_is_idle_where_nothing_runs_within_it() -> None:
    ranges = pd.DataFrame(
        [
            ("harness", "a", 100, 200),
            ("harness", "b", 200, 300),
            ("other", "a", 0, 1000),
            ("harness", "c", 0, 9),
        ],
        columns=["domain", "name", "start_ns", "end_ns"],
    )
    work = pd.DataFrame([(90, 110), (105, 130), (150, 260)], columns=["start_ns", "end_ns"])
    found = idle_shares(ranges, work, ["a", "b", "c"])
    assert found == {"a": pytest.approx(0.2), "b": pytest.approx(0.4)}, "of c nothing is known"


ON_CPU = ("--device", "cpu", "--model", "tiny_random", "--json", "{out}", "--windows", "1")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*ON_CPU, "--scope", "nothing"), ExitCode.USAGE, "there is no scope 'nothing'"),
        ((*ON_CPU, "--scope", "baseline"), ExitCode.USAGE, "transformers' generate"),
        ((*ON_CPU, "--model", "{empty}"), ExitCode.INPUT, "--model bundled"),
        ((*ON_CPU, "--batch", "100000000000"), ExitCode.MACHINE, "a smaller --batch"),
        (("--json", "{empty}"), ExitCode.STORAGE, "is no file of this benchmark"),
        (("--json", "/proc/none/rows.json"), ExitCode.STORAGE, "can't be written"),
        (("--idle", "{out}"), ExitCode.TRACE, "no such file"),
        (("--update", "{out}", "--json", "{rows}"), ExitCode.STORAGE, "No such file"),
        (("--update", "{rows}", "--json", "{rows}"), ExitCode.USAGE, "has no place for the table"),
    ],
)
def test_mistakes_are_said(
    arguments: tuple[str, ...],
    code: ExitCode,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([ROW]))
    names = {"out": tmp_path / "absent", "empty": tmp_path / "empty", "rows": rows}
    assert main([argument.format(**names) for argument in arguments]) == code
    found = capsys.readouterr().err
    assert found.startswith("error: ") and said in found


@pytest.mark.parametrize("content", ["", "{", '{"rows": []}', "[1]", json.dumps([{"batch": 1}]), "\xff"])
def test_a_file_that_holds_no_rows_is_refused_before_minutes_of_work(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.json"
    rows.write_bytes(content.encode("latin-1"))
    assert main(["--json", str(rows)]) == ExitCode.STORAGE
    assert "try: --json ANOTHER_FILE" in capsys.readouterr().err and rows.stat().st_size == len(content)


def test_the_command_says_only_what_is_wrong() -> None:
    for arguments, said in (
        (["--windows", "0"], "argument --windows: has to be at least 1"),
        (["--json", "/proc/none/rows.json"], "/proc/none/rows.json can't be written"),
    ):
        line = [sys.executable, "-m", "benchmarks.throughput", *arguments]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode in (ExitCode.USAGE, ExitCode.STORAGE) and done.stdout == ""
        assert said in done.stderr and "Traceback" not in done.stderr and "torch" not in done.stderr
