"""Mistakes in a scope's file, and choices of the command line that would only look as if they were heard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.harness.cli import Command, call

FIRST = "# @package _global_\n"
NAMED = f"{FIRST}name: mine\n"
OWN = "workload: tests.harness.fake_workload\ncapture: none\nfake: {mischief: bad_input}\n"

BAD_FILES = {
    "a misspelt setting": (
        f"{NAMED}attenton: eager\n", ["mine.yaml: there is no", "'attenton'", "try: attention"]
    ),
    "a misspelt setting of a section": (
        f"{NAMED}graphs: {{hwo: manual}}\n", ["mine.yaml: there is no", "'graphs.hwo'", "try: graphs.how"]
    ),
    "one beside a workload of one's own": (
        f"{NAMED}measure: {{iteratons: 3}}\n{OWN.replace('bad_input', 'none')}", ["'measure.iteratons'"]
    ),
    "another name": (f"{FIRST}name: baseline\n", ["mine.yaml has name: baseline", "try: name: mine"]),
    "no name": (f"{FIRST}attention: sdpa\n", ["mine.yaml gives the scope no name", "try: name: mine"]),
    "no package": ("name: mine\n", ["mine.yaml lacks its first line, # @package _global_"]),
    "nothing": ("", ["mine.yaml lacks its first line, # @package _global_"]),
    "no YAML": (f"{NAMED}attention: eager: 3\n", ["mine.yaml, line 3: mapping values are not allowed here"]),
    "a misspelt reference": (
        f"{NAMED}compare_with: basline\n", ["compare_with=basline is neither", "try: compare_with=baseline"]
    ),
}  # fmt: skip


def written(folder: Path, text: str) -> Path:
    """A folder for Hydra with a scope `mine` in it."""
    (folder / "scope").mkdir()
    (folder / "scope" / "mine.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_mistake_in_a_scopes_file_names_the_file(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, case: str
) -> None:
    text, phrases = BAD_FILES[case]
    folder = written(tmp_path_factory.mktemp("scopes"), text)
    done = call([sys.executable, "-m", "harness", "--config-dir", str(folder), "+scope=mine"], tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    for phrase in phrases:
        assert phrase in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_workload_of_ones_own_has_settings_of_its_own(harness: Command, tmp_path: Path) -> None:
    folder = f"hydra.searchpath=[file://{written(tmp_path, NAMED + OWN)}]"
    done = harness("+scope=mine", folder)
    assert done.returncode == 3 and "the fake audio is silent" in done.stderr, "the workload was asked"
    assert (
        harness("+scope=mine", folder, "fake.mischief=none", "+fake.more=1", "dry_run=true").returncode == 0
    )


@pytest.mark.parametrize("model", ["bundled", "tiny_random", "whisper_small_random"])
def test_a_name_by_which_nothing_is_loaded_is_refused(harness: Command, model: str) -> None:
    done = harness("+scope=fake_one", "dry_run=true", f"model={model}", "model.name=/my/own")
    assert done.returncode == 2 and f"/my/own is not the name of model={model}" in done.stderr
    assert "try: model=whisper model.name=/my/own" in done.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=whisper", "model.name=/my/own"],
        ["model=whisper_small", "model.name=/my/own"],
        ["model=tiny_random", "model.name=deeper", "model.shape.layers=3"],
        ["name=another"],
    ],
)
def test_what_is_another_may_have_another_name(harness: Command, overrides: list[str]) -> None:
    done = harness("+scope=fake_one", "dry_run=true", *overrides)
    assert done.returncode == 0, done.stderr


def test_runs_of_a_given_name_can_be_compared_with(harness: Command, tmp_path: Path) -> None:
    compared = ("+scope=fake_one", "dry_run=true", "compare_with=quick")
    assert "compare_with=quick is neither" in harness(*compared).stderr
    (tmp_path / "outputs" / "quick").mkdir(parents=True)
    assert harness(*compared).returncode == 0
