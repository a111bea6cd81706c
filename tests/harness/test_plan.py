"""What is decided before a run starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from harness import environment, plan, usage
from harness.errors import ExitCode, UserError
from tests.harness.cli import CONF, ROOT


def planned(*overrides: str) -> plan.Plan:
    usage.register_resolvers()
    path = f"hydra.searchpath=[file://{CONF}]"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plan.make(compose("config", overrides=[path, "+scope=fake_one", "device=cpu", *overrides]))


@pytest.fixture(autouse=True)
def same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree may be edited while its tests run."""
    monkeypatch.setattr(
        environment, "git", lambda folder: {"commit": "1a2b3c4", "dirty": False, "diff": None}
    )


def test_where_the_results_go_is_not_part_of_the_fingerprint() -> None:
    first = planned()
    assert planned("outputs=/elsewhere", "resume=true").fingerprint == first.fingerprint
    assert planned("measure.iterations=4").fingerprint != first.fingerprint


def test_other_code_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    first = planned()
    monkeypatch.setattr(environment, "git", lambda folder: {"commit": "1a2b3c4", "dirty": True, "diff": "77"})
    assert planned().fingerprint != first.fingerprint


def test_tokens_are_comparable_over_scopes_and_not_over_audio() -> None:
    first = planned()
    assert planned("attention=sdpa", "name=other", "measure.warmup=0").inputs == first.inputs
    assert planned("audio=harbour").inputs != first.inputs


TRANSCRIBE = ("workload=experiments.transcription",)


def test_tokens_are_comparable_wherever_the_sound_lies(tmp_path: Path) -> None:
    first = planned(*TRANSCRIBE, "audio=harbour")
    sound = Path(first.config.audio.path)
    copy = shutil.copy(sound, tmp_path)
    shutil.copy(sound.with_suffix(".txt"), tmp_path)
    second = planned(*TRANSCRIBE, f"audio.path={copy}")
    assert (second.inputs, second.fingerprint) == (first.inputs, first.fingerprint)


def test_another_sound_of_the_same_name_is_another_input(tmp_path: Path) -> None:
    shipped = ROOT / "experiments" / "clips"
    sound = tmp_path / "a.flac"
    shutil.copy(shipped / "harbour.flac", sound)
    first = planned(*TRANSCRIBE, f"audio.path={tmp_path}")
    shutil.copy(shipped / "kernels.flac", sound)
    second = planned(*TRANSCRIBE, f"audio.path={tmp_path}")
    assert second.inputs != first.inputs and second.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("wanted", "gpu", "device"),
    [("auto", None, "cpu"), ("auto", {"name": "H200"}, "cuda"), ("cpu", {"name": "H200"}, "cpu")],
)
def test_auto_takes_the_gpu_if_there_is_one(wanted: str, gpu: dict[str, Any] | None, device: str) -> None:
    assert plan.resolve_device(wanted, lambda: gpu) == device


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no GPU") as caught:
        plan.resolve_device("cuda", lambda: None)
    assert caught.value.exit_code == ExitCode.MACHINE


def test_the_stamp_never_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")  # no git
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "no such GPU")
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    stamp = environment.stamp("cuda")
    assert stamp["git"] == {"commit": None, "dirty": None, "diff": None}
    assert stamp["gpu"] is None and stamp["machine"] == environment.cpu()["model"]


def test_a_new_file_is_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new mechanism begins as a file that git does not know yet."""
    monkeypatch.undo()
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = environment.git(tmp_path)
    assert clean["dirty"] is False and clean["diff"] is None
    (tmp_path / "new.py").write_text("one")
    first = environment.git(tmp_path)
    (tmp_path / "new.py").write_text("two")
    second = environment.git(tmp_path)
    assert first["dirty"] and second["dirty"]
    assert len({clean["diff"], first["diff"], second["diff"]}) == 3
    assert clean["commit"] == first["commit"] == second["commit"]


def test_figures_that_were_published_are_no_other_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else all but the first of several measurements would be said to be of changed code."""
    monkeypatch.undo()
    (tmp_path / "README.md").write_text("before")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bench.json").write_text("[]")
    (tmp_path / "README.md").write_text("after")
    assert environment.git(tmp_path)["dirty"] is False
