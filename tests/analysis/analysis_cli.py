"""`python -m analysis`, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def analysis(
    *arguments: str | Path, cwd: Path, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command; none but an error of the program may show a traceback."""
    command = [sys.executable, "-m", "analysis", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120
    )
    assert "Traceback" not in (done.stdout or "") + done.stderr
    return done
