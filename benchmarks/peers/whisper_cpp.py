"""whisper.cpp's own benchmark, where somebody has built it: means as it prints them, with its own weights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import Task
from harness.errors import ExitCode, UserError

PROGRAM = "whisper-bench"


def measure(task: Task, _: str) -> dict[str, Any]:
    """`step_ms` and `encode_ms`, one value each; no tokens and no floor, for it takes only models in its own
    format, which may have any shapes."""
    if task.batch > 1:
        raise UserError("whisper.cpp decodes one window at a time")
    program, weights = find()
    command = [str(program), "-m", str(weights), *(["-ng"] if task.device == "cpu" else [])]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{PROGRAM} ended with {done.returncode}")
    return timings(done.stdout + done.stderr)


def find() -> tuple[Path, Path]:
    """whisper-bench in $WHISPER_CPP (a checkout that is built, or the program) or PATH, and the model in
    $WHISPER_CPP_MODEL; UserError without one of them."""
    given = Path(os.environ.get("WHISPER_CPP") or ".nowhere")
    places = [given, given / "build" / "bin" / PROGRAM, given / "bin" / PROGRAM, given / PROGRAM]
    program = next((str(place) for place in places if place.is_file()), shutil.which(PROGRAM))
    if program is None:
        raise UserError(
            f"not found: no {PROGRAM} in $WHISPER_CPP or PATH",
            "WHISPER_CPP=a built checkout of whisper.cpp",
            ExitCode.MACHINE,
        )
    weights = Path(os.environ.get("WHISPER_CPP_MODEL") or ".nowhere")
    if not weights.is_file():
        raise UserError(
            f"{PROGRAM} is here, but no model: $WHISPER_CPP_MODEL names no file",
            "WHISPER_CPP_MODEL=a ggml file of the same shapes, like ggml-small.bin",
            ExitCode.MACHINE,
        )
    return Path(program), weights


def timings(said: str) -> dict[str, Any]:
    """From lines like `encode time = 6.20 ms / 1 runs ( 6.20 ms per run)`."""
    found = dict(re.findall(r"(encode|decode) time =.*\(\s*([\d.]+) ms per run\)", said))
    if found.keys() != {"encode", "decode"}:
        raise RuntimeError(f"{PROGRAM} printed no times that can be read")
    return {
        "step_ms": [float(found["decode"])],
        "encode_ms": [float(found["encode"])],
        "total_ms": [],
        "tokens": [],
        "floor_bytes": None,
        "notes": ["mean of its own benchmark, without spread"],
    }
