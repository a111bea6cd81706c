"""Published runs hold what a reader needs, and no path of the machine that made them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness.cli import ROOT, call

PUBLISH = [sys.executable, "-m", "harness.publish"]


def test_the_newest_runs_are_copied_without_paths(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(swept[0] / "outputs", outputs)
    done = call([*PUBLISH, str(outputs), "--into", str(tmp_path / "into")], tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "into").glob("*/*/run.json"))
    assert [path.parent.parent.name for path in runs] == ["fake_one", "fake_two"]
    for run in runs:
        names = {path.name for path in run.parent.rglob("*") if path.is_file()}
        assert {
            "run.json",
            "config.yaml",
            "measure.json",
            "report.txt",
            "report.html",
            "latency.png",
        } <= names
        text = "".join(
            path.read_text() for path in run.parent.iterdir() if path.suffix in {".json", ".txt", ".html"}
        )
        for private in (str(outputs), str(ROOT), sys.executable):
            assert private not in text
    overview = (tmp_path / "into" / "report.html").read_text()
    for run in runs:
        assert f'href="{run.parent.relative_to(tmp_path / "into")}/report.html"' in overview
    assert str(outputs) not in overview and sys.executable not in overview
    table = [sys.executable, "-m", "harness.results"]
    db = str(tmp_path / "into" / "results.db")
    assert call([*table, "rebuild", "--db", db], tmp_path).returncode == 0
    assert "fake_two" in call([*table, "table", "--db", db], tmp_path).stdout


def test_a_folder_without_runs_is_one_message(tmp_path: Path) -> None:
    done = call([*PUBLISH, str(tmp_path), "--into", str(tmp_path / "into")], tmp_path)
    assert done.returncode == 2 and "results.db does not exist" in done.stderr
