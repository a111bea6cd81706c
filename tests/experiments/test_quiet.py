"""What libraries say of themselves when they are imported stays off the screen; other warnings do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.conftest import CLIPS, ROOT

OTHERS = """
import enum, logging, torch
from experiments.transcribe import Transcriber
import torchao
assert Transcriber(device="cpu")({clip!r}).segments
logging.getLogger("torchao").warning("a kernel is slow")
class Own(enum.Enum):
    one = 1
logging.getLogger("torch.utils._pytree").warning("%s: register_constant() is deprecated", Own)
"""
SMALL = (
    *("--model", "tiny_random", "--device", "cpu", "--batch", "1", "--source", "pcm", "--windows", "1"),
    *("--repeat", "1", "--json", "rows.json"),
)


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, *arguments]
    done = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_python_api_says_nothing_and_lets_others_speak(tmp_path: Path) -> None:
    said = run(tmp_path, "-c", OTHERS.format(clip=str(CLIPS / "harbour.flac"))).stderr.splitlines()
    assert len(said) == 2, said
    assert "a kernel is slow" in said[0] and "<enum 'Own'>: register_constant() is deprecated" in said[1]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("benchmarks.throughput", *SMALL), marks=pytest.mark.slow),
        pytest.param(
            ("experiments.evaluate", "--device", "cpu", "--audio", str(CLIPS / "harbour.flac")),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda command: command[0],
)
def test_commands_show_what_they_are_asked_for(command: tuple[str, ...], tmp_path: Path) -> None:
    assert run(tmp_path, "-m", *command).stderr == ""


@pytest.mark.slow
def test_the_log_of_a_run_is_about_the_run(tmp_path: Path) -> None:
    quick = ("measure.warmup=0", "measure.iterations=1", "capture=none", "device=cpu")
    run(tmp_path, "-m", "harness", "+scope=int8", "model=tiny_random", "audio=harbour", *quick)
    (log,) = tmp_path.glob("outputs/int8/*/log.txt")
    assert log.read_text() == ""
