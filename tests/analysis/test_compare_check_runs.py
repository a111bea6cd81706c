"""`python -m analysis check` names the runs that it judges, and passes none that is damaged or unfinished."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from analysis_cli import analysis
from runs_on_disk import write_run

from analysis.__main__ import main
from analysis.comparison import limits

Gate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    metrics = {"decode.idle_share": 0.2, "ms_per_token": 7.0, "wer": 0.0}
    return write_run(tmp_path / "base" / "20260101T000000Z", [7.0] * 8, metrics=metrics)


@pytest.fixture
def gate(baseline: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    """The exit code of a check of a run, what it said, and the errors among that."""

    def check(run: Path, *options: str, against: Path = baseline) -> tuple[int, str, str]:
        limited = options if "--max" in options else ("--max", "latency=+5%", *options)
        code = main(["check", str(run), "--baseline", str(against), *limited])
        said = capsys.readouterr()
        return code, said.out, said.err

    return check


def iteration(**changes: Any) -> dict[str, Any]:
    known = {"iter_ns": 9_000, "phases": {"decode": [4_000], "decode.step": [4_000]}}
    return {name: value for name, value in (known | changes).items() if value is not ...}


@pytest.mark.parametrize(
    ("record", "measured", "message"),
    [
        ({"metrics": None}, {}, "run.json is damaged: metrics is null, not an object"),
        ({"metrics": {"wer": None}}, {}, "the metric wer is null, not a number"),
        ({"metrics": {"wer": "0.1"}}, {}, 'the metric wer is "0.1", not a number'),
        ({"metrics": {"wer": True}}, {}, "the metric wer is true, not a number"),
        ({"status": None}, {}, "status is null, not a text"),
        ({"environment": []}, {}, "environment is [], not an object"),
        ({}, {"iterations": None}, "measure.json is damaged: iterations is null, not a list"),
        ({}, {"iterations": [iteration(), None]}, "iterations[1] is null"),
        ({}, {"iterations": [iteration(phases=...)]}, "iterations[0].phases is null, not an object"),
        ({}, {"iterations": [iteration(iter_ns=...)]}, "iterations[0].iter_ns is null, not a number above 0"),
        ({}, {"iterations": [iteration(iter_ns=math.nan)]}, "iter_ns is NaN, not a number above 0"),
        ({}, {"iterations": [iteration(iter_ns=0)]}, "iter_ns is 0, not a number above 0"),
        ({}, {"iterations": [iteration(phases={"decode": [math.inf]})]}, "phases.decode is [Infinity]"),
        ({}, {"iterations": [iteration(phases={"decode": [-1]})]}, "phases.decode is [-1]"),
        ({}, {"iterations": [iteration(phases={"decode": 4})]}, "phases.decode is 4, not a list of times"),
        ({}, {"iterations": [iteration(counts=None)]}, "iterations[0].counts is null"),
        ({}, {"workload": 3}, "workload is 3"),
        ({}, {"transcripts": [{}]}, "transcripts is [{}]"),
    ],
)
def test_a_damaged_run_is_6_and_the_entry_is_named(
    gate: Gate, tmp_path: Path, record: dict[str, Any], measured: dict[str, Any], message: str
) -> None:
    run = write_run(tmp_path / "new" / "1", [7.0] * 8)
    for name, changes in (("run.json", record), ("measure.json", measured)):
        (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | changes))
    code, _, error = gate(run)
    assert code == 6 and message in error and len(error.splitlines()) == 2


@pytest.mark.parametrize(
    ("metric", "damage"),
    [
        ("decode.idle_share", {"decode.idle_share": math.nan}),
        ("decode.idle_share", {"decode.idle_share": -math.inf}),
        ("decode.idle_share", {"decode.idle_share": 0.1, "decode.idle_share.low": math.nan}),
        ("decode.idle_share", {"decode.idle_share": 10**400}),
        *(("ms_per_token", {"ms_per_token": value}) for value in (math.nan, 0.0, -7.0)),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_no_number_or_no_time_passes_no_limit(
    gate: Gate, baseline: Path, tmp_path: Path, metric: str, damage: dict[str, float], swapped: bool
) -> None:
    run = write_run(tmp_path / "new" / "1", [], metrics=damage)
    pair = (baseline, run) if swapped else (run, baseline)
    code, _, error = gate(pair[0], "--max", f"{metric}=+5%", against=pair[1])
    assert code == 6 and f"{metric} of new is " in error and len(error.splitlines()) == 2


def test_decoding_in_no_time_is_no_latency(gate: Gate, tmp_path: Path) -> None:
    code, _, error = gate(write_run(tmp_path / "new" / "1", [0.0] * 8))
    assert code == 6 and "ms_per_token of new is 0.0" in error


def test_the_runs_that_are_judged_are_named(gate: Gate, baseline: Path, tmp_path: Path) -> None:
    older, newer = (write_run(tmp_path / "new" / f"2026020{day}T000000Z", [7.0] * 8) for day in (1, 2))
    code, said, _ = gate(older.parent)
    assert code == 0 and said.startswith(f"baseline: {baseline}\nrun:      {newer}\n")
    copied = tmp_path / "copy"
    shutil.copytree(older, copied)
    assert f"run:      {copied} (new/20260201T000000Z)\n" in gate(copied)[1]


@pytest.mark.parametrize(
    ("status", "words"),
    [("failed", "failed"), ("running", "still running, or killed"), (None, "it has no run.json")],
)
@pytest.mark.parametrize("folder", ["new", "."])
def test_an_older_run_does_not_stand_for_a_newer_one_that_did_not_finish(
    gate: Gate, tmp_path: Path, status: str | None, words: str, folder: str
) -> None:
    root = tmp_path / "outputs"
    finished = write_run(root / "new" / "20260202T000000Z", [7.0] * 8)
    write_run(root / "new" / "20260201T000000Z", [7.0] * 8, status="failed")
    assert gate(root / folder)[0] == 0
    newer = write_run(root / "new" / "20260202T000000Z-1", [], started_utc=finished.name, status=status or "")
    if status is None:
        (newer / "run.json").unlink()
    code, _, error = gate(root / folder)
    assert code == 4 and f"{newer} ({words})" in error and f"like {finished}, or add --force" in error
    assert gate(finished)[0] == 0
    code, said, _ = gate(root / folder, "--force")
    assert code == 0 and "a newer run that did not finish was passed over" in said


def test_a_recording_of_another_program_is_no_newer_run(gate: Gate, tmp_path: Path) -> None:
    write_run(tmp_path / "outputs" / "new" / "20260202T000000Z", [7.0] * 8)
    (tmp_path / "outputs" / "profile" / "20260203T000000Z").mkdir(parents=True)
    assert gate(tmp_path / "outputs")[0] == 0
    write_run(tmp_path / "outputs" / "other" / "20260204T000000Z", [], status="failed")
    assert gate(tmp_path / "outputs")[0] == 4


@pytest.mark.parametrize("swapped", [False, True])
def test_a_run_that_did_not_finish_is_not_judged(
    gate: Gate, baseline: Path, tmp_path: Path, swapped: bool
) -> None:
    run = write_run(tmp_path / "new" / "1", [7.0] * 8, status="interrupted")
    pair = (baseline, run) if swapped else (run, baseline)
    code, _, error = gate(pair[0], against=pair[1])
    assert code == 4 and f"{run} is no finished run (interrupted)" in error and "--force" in error
    code, said, _ = gate(pair[0], "--force", against=pair[1])
    assert code == 0 and "no finished run (interrupted)" in " ".join(said.split())


def test_output_that_cannot_be_written_is_5(baseline: Path, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    for options in ((), ("--json",)):
        words = ("check", baseline, "--baseline", baseline, "--max", "latency=+5%", *options)
        with full.open("w") as stdout:
            done = analysis(*words, cwd=tmp_path, stdout=stdout.fileno())
        assert done.returncode == 5 and "the output can't be written: No space left" in done.stderr


def test_an_error_of_the_program_is_no_regression(gate: Gate, baseline: Path, monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(limits, "hold", fail)
    code, _, error = gate(baseline)
    assert code == 70 and "ZeroDivisionError: a mistake" in error and "Traceback" in error


def test_a_gate_says_that_a_run_is_held_against_itself(gate: Gate, baseline: Path, tmp_path: Path) -> None:
    assert "is held against itself" in " ".join(gate(baseline)[1].split())
    assert "itself" not in gate(write_run(tmp_path / "new" / "1", [7.0] * 8))[1]
