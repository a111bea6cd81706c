"""Fixtures around the real command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.cli import Command, argv, call


@pytest.fixture
def harness(tmp_path: Path) -> Command:
    """`python -m harness ...` in an empty folder."""
    return lambda *arguments: call(argv(*arguments), tmp_path)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which a sweep over two scopes ran, and what it printed, imports of the parent included.
    Tests must not change it."""
    cwd = tmp_path_factory.mktemp("swept")
    python, *arguments = argv("-m", "+scope=fake_one,fake_two")
    return cwd, call([python, "-X", "importtime", *arguments], cwd)
