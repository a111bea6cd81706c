"""Training through its real command, in the recipe that takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, WhisperForConditionalGeneration

from experiments import draft, models
from experiments.train import loop, pieces
from experiments.train.__main__ import NOT_FINISHED, main
from experiments.train.recipe import RECIPES
from harness.errors import ExitCode
from tests.experiments.conftest import ROOT


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m experiments.train` with its folders in `folder`."""
    line = [sys.executable, "-m", "experiments.train", *options(folder), *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def options(folder: Path) -> list[str]:
    return ["--work", str(folder / "work"), "--out", str(folder / "out"), "--device", "cpu"]


@pytest.mark.slow
def test_the_command_trains_a_checkpoint_that_transformers_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train(tmp_path, "--recipe", "smoke")
    assert done.returncode == ExitCode.OK, done.stderr
    out, recipe = tmp_path / "out", RECIPES["smoke"]
    assert json.loads(done.stdout.splitlines()[-1])["checkpoint"] == str(out)

    model = WhisperForConditionalGeneration.from_pretrained(out)
    assert model.dtype == torch.float16
    assert (model.config.d_model, model.config.decoder_layers) == (recipe.d_model, recipe.decoder_layers)
    assert all(p.isfinite().all() for p in model.parameters())
    assert len(AutoTokenizer.from_pretrained(out)) == model.config.vocab_size
    assert draft.load(out, model).config.decoder_ffn_dim == recipe.draft_ffn_dim
    cfg = {"source": "pretrained", "name": str(out), "new_tokens": None}
    loaded = models.load(cfg, "sdpa", "en", "cpu", None)
    assert loaded.prompt == (1281, 1282, 1284, 1288) and loaded.end == 1280
    curve = (tmp_path / "work/smoke/model/curve.jsonl").read_text().splitlines()
    assert json.loads(curve[-1])["step"] == recipe.steps
    # Untrained as it is, it gives each of 2790 tokens about the same chance: ln 2790 nats.
    assert json.loads(curve[-1])["loss"] == pytest.approx(7.93, abs=0.5)

    # Once more: nothing is left to do, and a folder that is not there is filled again.
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in out.iterdir():
        path.unlink()
    monkeypatch.delattr(pieces, "make_pool")  # no speech is made, nothing is trained
    assert main(["--recipe", "smoke", "--minutes", "0", *options(tmp_path)]) == ExitCode.OK
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.slow
def test_a_command_whose_time_is_over_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 2)  # the clock is looked at then
    assert main(["--recipe", "smoke", "--minutes", "0", *options(tmp_path)]) == NOT_FINISHED == 75
    assert capsys.readouterr().out.splitlines()[-1] == "stopped after 0 minutes; the same command goes on"
    assert torch.load(tmp_path / "work/smoke/model/state.pt")["step"] == 2
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = train(tmp_path, "--recipe", "enormous")
    assert done.returncode == ExitCode.USAGE
    assert "'enormous'" in done.stderr and "smoke" in done.stderr


def test_a_state_of_another_recipe_or_other_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces._claim(tmp_path / "work/smoke", RECIPES["bundled"])
    assert main(["--recipe", "smoke", *options(tmp_path)]) == ExitCode.USAGE
    assert f"rm -r {tmp_path / 'work/smoke'}" in capsys.readouterr().err


def test_only_the_bundled_recipe_writes_over_the_bundled_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {}
    monkeypatch.setattr(pieces, "train", lambda recipe, work, out, *_: written.update({recipe: out}) or True)
    for recipe in RECIPES:
        assert main(["--recipe", recipe, "--device", "cpu", "--work", str(tmp_path)]) == ExitCode.OK
    assert written == {"bundled": ROOT / "experiments/checkpoint", "smoke": tmp_path / "smoke/out"}


def test_a_gpu_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--recipe", "smoke", *options(tmp_path)[:-1], "cuda"]) == ExitCode.MACHINE
    assert "--device cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    "trouble, code, said",
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "the same command goes on"),
        (NotADirectoryError(20, "Not a directory", "work/model"), ExitCode.STORAGE, "--work and --out"),
    ],
)
def test_what_ends_it_early_is_no_traceback(
    trouble: BaseException,
    code: ExitCode,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(*_: object) -> bool:
        raise trouble

    monkeypatch.setattr(pieces, "train", ends)
    assert main(["--recipe", "smoke", *options(tmp_path)]) == code
    assert said in capsys.readouterr().err
