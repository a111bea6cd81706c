"""NVIDIA's command-line tools on this machine: where they are, and questions to them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ExitCode, UserError

NVCC_PLACES = ("/usr/local/cuda/bin/nvcc", "/usr/local/cuda-*/bin/nvcc")
NVCC_HINT = (
    "install the CUDA toolkit, or set NVCC=/path/to/nvcc; without it a GPU runs the scopes baseline, flash "
    "and cuda_graphs, but no topk=fused, loop=device, attention=kernel, decoder=fused, quantize=int8 or "
    "int8_dynamic"
)
PATIENCE_S = 60  # for calls that answer at once where the tool is healthy


def find(program: str, places: Sequence[str], root: Path = Path("/")) -> Path | None:
    """The `program` to use: the variable of its name in capitals (UserError if that isn't a program), else
    PATH, else `places` (glob patterns, absolute) in `root`, in order, the newest version of each first."""
    variable = program.upper()
    if wanted := os.environ.get(variable):
        if found := shutil.which(wanted):
            return Path(found).absolute()
        raise UserError(
            f"{variable}={wanted} is not a program that can be run",
            f"{variable}=/path/to/{program}, or unset it to have {program} looked for",
            ExitCode.MACHINE,
        )
    if on_path := shutil.which(program):
        return Path(on_path).absolute()
    for place in places:
        if installed := [path for path in root.glob(place.removeprefix("/")) if _runs(path)]:
            return max(installed, key=_version_in_path)
    return None


def version(tool: Path, hint: str) -> str:
    """The version, like "2025.3.1.90"; UserError with `hint` if the tool doesn't start."""
    answer = ask([tool, "--version"], "does not start", hint)
    if match := re.search(r"\d{4}\.\d+(\.\d+)*", answer):
        return match[0]
    raise UserError(
        f"{tool} --version does not answer like {tool.name}: {answer[:200]!r}", hint, ExitCode.MACHINE
    )


def ask(command: Sequence[str | Path], failure: str, hint: str, patience_s: float | None = PATIENCE_S) -> str:
    """Run a tool to its end, its progress bars kept off the terminal, and return what it said on standard
    output. UserError (MACHINE) "<tool> <failure>: <reason>" if it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=patience_s
        )
    except OSError as error:
        reason = error.strerror or str(error)
    except subprocess.TimeoutExpired:
        reason = f"no answer within {patience_s:.0f} s"
    else:
        if done.returncode == 0:
            return done.stdout
        reason = _last_words(done.stderr) or _last_words(done.stdout) or f"exit code {done.returncode}"
    if library := re.search(r"(\S+\.so\S*): cannot open shared object", reason):
        hint = f"install the package that has {library[1]} (for libdw.so.1 on Debian and Ubuntu: libdw1)"
    raise UserError(f"{command[0]} {failure}: {reason}", hint, ExitCode.MACHINE)


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _version_in_path(path: Path) -> list[int]:
    """2025.3.1 is newer than 2025.10 only as text."""
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _last_words(output: str) -> str:
    r"""The last line that says something; progress bars redraw theirs with \r."""
    lines = [line.rsplit("\r", 1)[-1].strip() for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "")
