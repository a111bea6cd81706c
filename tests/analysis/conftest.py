"""Real exports (tests/data) and synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import Account, Trace, account

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], Path]:
    """Path of a bundled real export, by the start of its name."""

    def find(name: str) -> Path:
        (path,) = DATA.glob(f"{name}*.sqlite.xz")
        return path

    return find


@pytest.fixture(scope="session")
def eager(recorded: Callable[[str], Path]) -> tuple[Trace, Account]:
    """A Whisper-small generate loop with eager attention, nsys 2025.3."""
    with Trace.open(recorded("h200_eager_2025.3")) as trace:
        return trace, account(trace)


@pytest.fixture(scope="session")
def graph(recorded: Callable[[str], Path]) -> tuple[Trace, Account]:
    """Twenty replays of a CUDA graph of sixteen kernels, node mode, nsys 2025.3."""
    with Trace.open(recorded("h200_graph")) as trace:
        return trace, account(trace)


@pytest.fixture(scope="session")
def loop() -> tuple[Trace, Account]:
    """A window of the published run of `optimized`: all steps in one graph launch, traced as one piece."""
    (path,) = (DATA.parents[1] / "results" / "h200" / "optimized").glob("*/trace.sqlite.xz")
    with Trace.open(path) as trace:
        return trace, account(trace)
