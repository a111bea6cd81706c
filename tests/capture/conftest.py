"""A real nsys where there is one, and fake ones for everything that can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import nsys

ROOT = Path(__file__).resolve().parents[2]

# The given commands find the recording's path without its ending in $stem.
FAKE_NSYS = """\
#!/bin/sh
for word; do [ "$before" = --output ] && stem=$word; before=$word; done
case "$1" in
  --version) echo "NVIDIA Nsight Systems version 2025.3.1.90-fake" ;;
  profile) {profile} ;;
  export) {export} ;;
esac
"""


@pytest.fixture
def fake_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs an nsys, and an importer beside it, that do what the given shell commands do."""

    def install(profile: str = "true", export: str = "true", importer: str | None = "true") -> Path:
        target = _script(
            tmp_path / "nsight" / "target-linux-x64" / "nsys",
            FAKE_NSYS.format(profile=profile, export=export),
        )
        if importer is not None:
            _script(tmp_path / "nsight" / "host-linux-x64" / nsys.IMPORTER, f"#!/bin/sh\n{importer}\n")
        monkeypatch.setenv("NSYS", str(target))
        return target

    return install


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m MODULE ARGS` as a user does; whatever goes wrong, no traceback may be shown."""

    def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-m", *arguments]
        done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
