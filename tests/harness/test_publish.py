"""Published runs hold what a reader needs, and no path of the machine that made them; the page of a folder
shows all that is published there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import trim
from harness.errors import UserError
from harness.publish import _trim_metrics, publish
from harness.store import Store
from tests.harness.cli import ROOT, Command, call

PUBLISH = [sys.executable, "-m", "harness.publish"]
RESULTS = [sys.executable, "-m", "harness.results"]
PYTHON, NSYS = "/opt/torch/.venv/bin/python3", "/opt/nvidia/2025.3/nsys"


def published(outputs: Path, into: Path) -> subprocess.CompletedProcess[str]:
    return call([*PUBLISH, str(outputs), "--into", str(into)], into.parent)


@pytest.fixture
def outputs(swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A folder of two finished runs."""
    return Path(shutil.copytree(swept[0] / "outputs", tmp_path / "outputs"))


def texts(run: Path) -> str:
    return "".join(path.read_text() for path in run.iterdir() if path.is_file())


def test_the_newest_runs_are_copied_without_paths(outputs: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    done = published(outputs, into)
    assert done.returncode == 0, done.stderr
    runs = sorted(into.glob("*/*/run.json"))
    assert [path.parent.parent.name for path in runs] == ["fake_one", "fake_two"]
    files = {"run.json", "config.yaml", "measure.json", "report.txt", "report.html", "latency.png"}
    for run in runs:
        assert files <= {path.name for path in run.parent.rglob("*") if path.is_file()}
        for private in (str(outputs), str(ROOT), sys.executable):
            assert private not in texts(run.parent)
    overview = (into / "report.html").read_text()
    for run in runs:
        assert f'href="{run.parent.relative_to(into)}/report.html"' in overview
    assert str(outputs) not in overview and sys.executable not in overview
    db = str(into / "results.db")
    assert call([*RESULTS, "rebuild", "--db", db], tmp_path).returncode == 0
    assert "fake_two" in call([*RESULTS, "table", "--db", db], tmp_path).stdout


def test_a_run_that_was_made_elsewhere_names_no_path_of_that_machine(outputs: Path, tmp_path: Path) -> None:
    """As if another machine had made it, traced by nsys: other places, another interpreter."""
    (record,) = outputs.glob("fake_two/*/run.json")
    there, run = "/home/me/results", f"fake_two/{record.parent.name}"
    made = json.loads(record.read_text())
    made["command"] = [PYTHON, "-m", "harness", "+scope=fake_two", f"outputs={there}"]
    made["overrides"] = ["+scope=fake_two", f"outputs={there}", "audio.path='/home/me/my talk.mp3'"]
    child = [PYTHON, "-m", "harness.child", "trace", f"{there}/{run}"]
    made["capture"]["command"] = [NSYS, "profile", "--output", f"{there}/{run}/trace", *child]
    made["capture"]["metrics_command"] = [NSYS, "--output", f"{there}/{run}/metrics"]
    record.write_text(json.dumps(made))
    with open(record.parent / "report.txt", "a") as report:
        report.write(f"python -m analysis export {there}/{run}/trace.sqlite; heard /home/me/my talk.mp3.\n")

    (record.parent / "report.html").write_text("by older code")

    assert published(outputs, tmp_path / "into").returncode == 0
    folder = tmp_path / "into" / run
    found = json.loads((folder / "run.json").read_text())
    assert found["command"] == ["python", "-m", "harness", "+scope=fake_two", "outputs=outputs"]
    assert found["overrides"] == ["+scope=fake_two", "outputs=outputs", "audio.path='my talk.mp3'"]
    child = ["python", "-m", "harness.child", "trace", f"outputs/{run}"]
    assert found["capture"]["command"] == ["nsys", "profile", "--output", f"outputs/{run}/trace", *child]
    assert found["capture"]["metrics_command"] == ["nsys", "--output", f"outputs/{run}/metrics"]
    report = (folder / "report.txt").read_text()
    assert report.endswith(f"export outputs/{run}/trace.sqlite; heard my talk.mp3.\n")
    assert not any(private in texts(folder) for private in ("/home/me", "/opt/"))
    page = (folder / "report.html").read_text()
    assert "</html>" in page and "by older code" not in page


@pytest.mark.slow
def test_a_part_of_the_scopes_joins_those_that_are_published(
    outputs: Path, harness: Command, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    assert published(outputs, into).returncode == 0
    (into / "ladder.png").unlink()
    (before,) = into.glob("fake_two/*")
    assert harness("+scope=fake_one", f"outputs={tmp_path / 'more'}").returncode == 0
    done = published(tmp_path / "more", into)
    assert done.returncode == 0 and not done.stderr
    page = (into / "report.html").read_text()
    (one,) = (path.relative_to(into) for path in into.glob("fake_one/*"))
    assert page.index(f'href="{one}/report.html"') < page.index(f'href="fake_two/{before.name}/report.html"')
    assert (tmp_path / "more" / one).exists() and "<title>fake_one, fake_two" in page, (
        "the reference is first"
    )
    assert (into / "ladder.png").stat().st_size > 0 and not (into / "ladder.svg").exists()


@pytest.mark.slow
def test_what_can_not_be_compared_stays_and_is_left_out_of_the_page(
    outputs: Path, harness: Command, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    assert published(outputs, into).returncode == 0
    (broken,) = into.glob("fake_two/*/run.json")
    broken.write_text("{")
    assert harness("+scope=fake_one", "name=other", "model=tiny_random", "outputs=more").returncode == 0
    done = published(tmp_path / "more", into)
    assert done.returncode == 0
    broken_note, other_note = done.stderr.splitlines()
    assert "fake_two" in broken_note and "not a run's record" in broken_note
    assert "fake_one/" in other_note and "has not the inputs and the machine of other/" in other_note
    assert "<title>other" in (into / "report.html").read_text()
    assert next(into.glob("fake_one/*/run.json")).exists()


def test_a_folder_without_runs_is_one_message(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    done = published(outputs, tmp_path / "into")
    assert done.returncode == 2 and "results.db does not exist" in done.stderr
    Store(outputs).close()
    done = published(outputs, tmp_path / "into")
    assert done.returncode == 2 and "has no finished run" in done.stderr
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("into", ["outputs", "outputs/fake_one", "."])
def test_a_folder_is_not_published_into_itself(outputs: Path, tmp_path: Path, into: str) -> None:
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="not two folders apart"):
        publish(outputs, tmp_path / into)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("stepped", "first", "longer", "kept"),
    [
        (True, 60_000, 290_000, "decode.step:40"),
        (True, 60_000, 310_000, "decode.step:4"),  # which would not fit
        (True, 160_000, 290_000, "decode.step:4"),
        (False, 60_000, 290_000, "iter:1"),
    ],
)
def test_a_longer_recording_with_metrics_is_kept_where_it_is_small_enough(
    stepped: bool, first: int, longer: int, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shortened(export: Path, out: Path, until: str) -> None:
        size = longer if until == "decode.step:40" else first
        out.write_bytes(until.encode().ljust(size))

    monkeypatch.setattr(trim, "trim", shortened)
    _trim_metrics(tmp_path / "metrics.sqlite", tmp_path / "metrics.sqlite.xz", stepped)
    (file,) = tmp_path.iterdir()
    assert file.name == "metrics.sqlite.xz" and file.read_text().strip() == kept
