"""Small real Whispers and real sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments.transcription import Transcription, build
from harness.phases import HostTimer, NvtxAnnotator, PhaseClock

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT / "experiments" / "clips"


@pytest.fixture(scope="session")
def configure() -> Callable[..., DictConfig]:
    """The configuration of a scope, as the command line composes it."""

    def compose_scope(scope: str, *overrides: str) -> DictConfig:
        import harness.__main__  # noqa: F401 - registers the resolvers that conf/ uses

        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            defaults = [f"+scope={scope}", "model=tiny_random", f"audio.path={CLIPS}"]
            return compose("config", overrides=[*defaults, *overrides])

    return compose_scope


@pytest.fixture
def clock() -> PhaseClock:
    return PhaseClock(HostTimer(), NvtxAnnotator())


@pytest.fixture(scope="session")
def tokens_of(configure: Callable[..., DictConfig]) -> Callable[..., list[list[int]]]:
    """Token ids of both clips under a scope, on the CPU in fp32."""

    def transcribe(scope: str, *overrides: str) -> list[list[int]]:
        work: Any = build(configure(scope, *overrides), "cpu")
        return [window["tokens"] for window in work.transcripts()]

    return transcribe


@pytest.fixture(scope="session")
def baseline(configure: Callable[..., DictConfig]) -> Transcription:
    return build(configure("baseline"), "cpu")
