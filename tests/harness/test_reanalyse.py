"""`python -m harness.reanalyse`: a run's results made anew from what its children left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from harness.errors import ExitCode, UserError
from harness.job import Job
from harness.reanalyse import reanalyse
from harness.report import screen
from harness.store import Store
from tests.harness.cli import ROOT, call

REANALYSE = [sys.executable, "-m", "harness.reanalyse"]


@pytest.fixture
def run(swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """The folder of a finished run that was compared with another; both were moved here."""
    outputs = shutil.copytree(swept[0] / "outputs", tmp_path / "moved")
    (folder,) = outputs.glob("fake_two/*")
    return Path(folder)


def reanalysed(*runs: Path) -> subprocess.CompletedProcess[str]:
    return call([*REANALYSE, *map(str, runs)], runs[0].parent)


def record_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def test_a_run_whose_analysis_failed_becomes_what_it_would_have_been(run: Path) -> None:
    before, said = record_of(run), (run / "report.txt").read_text()
    assert before["metrics"] and before["tokens_match"], "there is something to make anew"
    error = {"message": "a mistake in the analysis", "hint": "", "exit_code": 1}
    lost = {"metrics": {"ms_per_token": 0.0}, "verdict": [], "tokens_match": None, "artifacts": []}
    (run / "run.json").write_text(json.dumps(before | lost | {"status": "failed", "error": error}))
    shutil.rmtree(run / "plots")
    for name in ("report.txt", "report.html"):
        (run / name).unlink()

    done = reanalysed(run)
    assert done.returncode == 0, done.stderr
    after = record_of(run)
    assert set(after.pop("analysed")) == {"utc", "commit", "dirty"}
    before.pop("analysed")
    assert after == before
    assert (run / "report.txt").read_text() == said and all(
        (run / name).exists() for name in after["artifacts"]
    )
    assert "Analysed again" in (run / "report.html").read_text()
    assert str(run / "plots" / "latency.png") in done.stdout
    store = Store(run.parents[1])
    (row,) = [row for row in store.runs() if row["id"] == after["id"]]
    assert (row["status"], row["error"]) == ("finished", None)
    assert store.metrics(after["id"]) == before["metrics"]


def test_what_can_not_be_analysed_stays_as_it_was_and_stops_no_other(run: Path) -> None:
    (other,) = run.parents[1].glob("fake_one/*")
    (run / "measure.json").unlink()
    before = (run / "run.json").read_bytes()
    done = reanalysed(run, other)
    assert done.returncode == 7
    assert f"{run / 'measure.json'} is not there, which measuring was to write" in done.stderr
    assert (run / "run.json").read_bytes() == before and record_of(other)["analysed"]


def test_a_published_run_is_left_as_it_was(tmp_path: Path) -> None:
    (published,) = (ROOT / "results" / "h200").glob("cuda_graphs/*")
    kept = Path(shutil.copytree(published, tmp_path / "cuda_graphs" / published.name))
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    done = reanalysed(kept)
    assert done.returncode == 7 and "traced.json is not there" in done.stderr
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


def test_a_recording_that_is_gone(run: Path) -> None:
    before = record_of(run)
    plots = run / "plots"
    shutil.rmtree(plots)
    traced = {"backend": "nsys", "command": ["nsys", "profile", "python"]}
    (run / "run.json").write_text(json.dumps(before | {"capture": before["capture"] | traced}))
    shutil.copy(run / "measure.json", run / "traced.json")
    done = reanalysed(run)
    assert done.returncode == 6
    assert f"{run / 'trace.sqlite'} is not there" in done.stderr and "make the run again" in done.stderr
    assert not plots.exists(), "nothing is drawn of what can't be analysed"


def test_a_full_disk_takes_no_recording(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = [run / name for name in ("trace.nsys-rep", "trace.sqlite", "metrics.sqlite")]
    for path in recordings:
        path.touch()
    before = (run / "run.json").read_bytes()
    monkeypatch.setattr("harness.digest.latency", Mock(side_effect=ValueError))
    monkeypatch.setattr(Job, "disk_is_full", lambda self, error: True)
    with pytest.raises(UserError, match="is full") as caught:
        reanalyse(run, screen())
    assert caught.value.exit_code == ExitCode.STORAGE
    assert all(path.exists() for path in recordings) and (run / "run.json").read_bytes() == before


def test_what_is_no_run_of_its_own(run: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no run.json, so it is not a run" in reanalysed(empty).stderr
    assert not (tmp_path / "results.db").exists(), "no index beside what isn't a run"
    copied = Path(shutil.copytree(run, tmp_path / "elsewhere" / "copy"))
    done = reanalysed(copied)
    assert done.returncode == 2 and "has to lie in a folder of that name" in done.stderr
    made = record_of(run)
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (run / "run.json").write_text(json.dumps(made | {"status": "running", "pid": alive.pid}))
        assert "is still being made" in reanalysed(run).stderr
    finally:
        alive.kill()
        alive.wait()


def test_a_run_of_another_machine_gives_tokens_to_compare_and_no_speedup(run: Path) -> None:
    (other,) = run.parents[1].glob("fake_one/*")
    theirs = record_of(other)
    theirs["environment"]["machine"] = "another"
    (other / "run.json").write_text(json.dumps(theirs))
    done = reanalysed(run)
    assert done.returncode == 0, done.stderr
    after = record_of(run)
    assert after["tokens_match"]["run"] == theirs["id"] and "speedup" not in after["metrics"]
    assert f"no speedup: {theirs['id']} was measured on another machine (another)" in done.stdout


@pytest.mark.slow
def test_a_damaged_run_of_the_other_scope_is_not_compared_with(run: Path) -> None:
    (other,) = run.parents[1].glob("fake_one/*")
    for damage in ("cut", None):
        if damage:
            (other / "measure.json").write_text((other / "measure.json").read_text()[:500])
        else:
            (other / "measure.json").unlink()
        done = reanalysed(run)
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert (
            f"Tokens: not compared with fake_one: its newest run is damaged: {other / 'measure.json'}" in said
        )
        assert record_of(run)["tokens_match"]["identical"] is None
    (run / "measure.json").write_text("{")
    done = reanalysed(run)
    assert done.returncode == 7 and "measure.json can't be read: Expecting" in done.stderr
