"""The real command, run on a workload without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONF = Path(__file__).parent / "conf"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def argv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", "--config-dir", str(CONF), *arguments]


def env() -> dict[str, str]:
    """The project importable from any folder, and no GPU: these tests are about the harness."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "150"}


def call(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would; no command may ever show a traceback."""
    done = subprocess.run(command, cwd=cwd, env=env(), capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def records(cwd: Path) -> list[dict[str, Any]]:
    """The run.json of every run under cwd/outputs, oldest first."""
    found = [json.loads(p.read_text()) for p in cwd.glob("outputs/*/*/run.json")]
    return sorted(found, key=lambda r: (r["started_utc"], r["id"]))
