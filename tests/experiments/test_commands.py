"""Scopes through the real command, on real sound; and sound that can't be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from analysis import Trace
from experiments.loops import LAG
from harness.errors import ExitCode
from tests.experiments.bad_sound import BAD_SOUND, bad_sound, tone
from tests.experiments.conftest import CLIPS, ROOT


def harness(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m harness ...` in `cwd`; no command may ever show a traceback."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment
    line = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def only_run(cwd: Path) -> Path:
    (record,) = cwd.glob("outputs/*/*/run.json")
    return record.parent


@pytest.mark.nsys
@pytest.mark.slow
def test_nsys_records_the_phases_of_a_real_transcription(real_nsys: Path, tmp_path: Path) -> None:
    quick = ("measure.warmup=1", "measure.iterations=2", "trace.warmup=1", "trace.iterations=2")
    done = harness(
        tmp_path, "+scope=cuda_graphs", f"audio.path={CLIPS}", "device=cpu", "capture=nsys", *quick
    )
    assert done.returncode == ExitCode.OK, done.stderr
    run = only_run(tmp_path)
    assert (run / "trace.nsys-rep").exists(), "an import that nsys left unfinished is finished"
    with Trace.open(run / "trace.sqlite") as trace:
        ranges = trace.ranges[trace.ranges["domain"] == "harness"]
    counts = ranges["name"].value_counts().to_dict()
    measured = json.loads((run / "measure.json").read_text())
    tokens = [len(window["tokens"]) for window in measured["transcripts"]]
    # Two iterations over two clips. The first token comes with the prefill; the host sees the end token LAG
    # steps later, so a clip of n tokens and the end token takes n + LAG - 1 steps.
    steps = sum(count + LAG - 1 for count in tokens)
    windows = {"features": 4, "encode": 4, "prefill": 4, "decode": 4}
    assert counts == {"iter": 2, **windows, "decode.step": 2 * steps}
    positions = ranges.loc[ranges["name"] == "decode.step", "payload"].astype(int)
    assert sorted(set(positions)) == list(range(1, max(tokens) + LAG))
    assert "The quick brown fox jumps over the lazy dog while seven ships sail slowly" in done.stdout
    assert "Words: 0.00% WER" in done.stdout
    printed = [Path(line) for line in done.stdout.split() if line.endswith(".png")]
    assert {path.name for path in printed} == {
        "latency.png", "gaps.png", "timeline.png", "roofline.png", "dram.png"
    }  # fmt: skip
    for path in printed:
        assert path.is_absolute() and path.stat().st_size > 10_000
    assert "recorded on NVIDIA H200" in done.stdout, "the gaps shown are the recorded ones, and it says so"
    assert "recorded on NVIDIA H200" in (run / "plots" / "gaps.svg").read_text()


@pytest.mark.slow
def test_wide_sound_is_transcribed_and_the_change_is_noted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "wide.wav", tone(1.0, 96_000, 8), 96_000)
    quick = ("measure.warmup=0", "measure.iterations=1", "capture=none", "device=cpu")
    done = harness(tmp_path, "+scope=flash", f"audio.path={tmp_path / 'wide.wav'}", *quick)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "8 channels, mixed down to one" in done.stdout
    assert "96000 Hz, resampled to 16000 Hz" in done.stdout


@pytest.mark.parametrize("kind", BAD_SOUND)
def test_unusable_audio_is_refused_with_its_reason(kind: str, tmp_path: Path) -> None:
    path = bad_sound(tmp_path, kind)
    done = harness(tmp_path, "+scope=baseline", f"audio.path={path}")
    assert done.returncode == ExitCode.INPUT
    assert f"error: {path}" in done.stderr
    assert BAD_SOUND[kind] in done.stderr
    assert "try:" in done.stderr
    assert not (tmp_path / "outputs").exists(), "a refused run leaves nothing behind"


@pytest.mark.slow
def test_a_model_without_hub_or_cache_is_refused_with_the_choices(tmp_path: Path) -> None:
    nowhere = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    arguments = (
        "+scope=baseline",
        "model=whisper_small",
        f"audio.path={CLIPS}",
        "device=cpu",
        "capture=none",
    )
    done = harness(tmp_path, *arguments, **nowhere)
    assert done.returncode == ExitCode.INPUT
    assert "'openai/whisper-small' could not be loaded" in done.stderr
    assert "model=whisper_small_random" in done.stderr
    assert json.loads((only_run(tmp_path) / "run.json").read_text())["status"] == "failed"


def test_a_checkpoint_folder_without_weights_is_refused(tmp_path: Path) -> None:
    done = harness(tmp_path, "+scope=baseline", "device=cpu", f"model.path={tmp_path}")
    assert done.returncode == ExitCode.INPUT
    assert f"{tmp_path} holds no model.safetensors" in done.stderr and "try: model.path=" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "override, named",
    [
        ("attention=fast", "eager, sdpa, flash"),
        ("graphs.how=manual", "decoder=static"),
        ("graphs=null", "graphs=null is not a section"),
        ("model=whisper_smal", "whisper_small"),
        ("model.source=nowhere", "random, pretrained"),
        ("model.new_tokens=x", "model.new_tokens=x is not a whole number"),
        ("model=tiny_random model.shape=null", "model.shape=null is not a section"),
        ("model=tiny_random model.shape.suppress=7", "model.shape.suppress=7 is not a list"),
        ("model.path=5", "model.path=5 is not the folder"),
        ("max_new_tokens=abc", "max_new_tokens=abc is not a whole number"),
        ("audio=null", "audio=null"),
        ("audio.path=5", "audio.path=5 is not the path"),
        ("audio.language=null", "audio.language=null is not the code"),
        ("audio.max_seconds=abc", "audio.max_seconds=abc is not a number above 0"),
    ],
)
def test_choices_that_do_not_exist_or_fit_are_refused(override: str, named: str, tmp_path: Path) -> None:
    done = harness(tmp_path, "+scope=baseline", "device=cpu", *override.split())
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 2
    assert named in done.stderr
    assert not list(tmp_path.iterdir()), "a refused run leaves nothing behind"


def test_shipped_sound_is_found_from_any_folder_and_own_sound_from_here(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "own.wav", tone(1.0, 16_000), 16_000)
    look = ("+scope=baseline", "dry_run=true", "capture=none", "device=cpu")
    assert harness(tmp_path, *look).returncode == ExitCode.OK
    assert harness(tmp_path, *look, "audio.path=own.wav").returncode == ExitCode.OK
    assert harness(tmp_path.parent, *look, "audio.path=own.wav").returncode == ExitCode.INPUT
