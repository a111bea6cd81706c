"""CUDA sources to shared libraries: compiled by nvcc when first asked for, kept by content.

The libraries have extern "C" launchers that take raw pointers and a stream, so they depend on neither
PyTorch's headers nor its version: a build takes seconds.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from harness import tools
from harness.errors import ExitCode, UserError

KERNELS = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-lineinfo", "--compiler-options=-fPIC", "--shared", "-rdc=true", "-lcudadevrt")
TIMEOUT_S = 300  # many times what the largest takes
LEAST = 80  # compute capability, without the dot
_WITHOUT_KERNELS = "decoder=static attention=sdpa topk=torch loop=host quantize=none"


def library(source: Path, defines: Mapping[str, int | str] | None = None, least: int = LEAST) -> ctypes.CDLL:
    """The library of `source`, a .cu file, for the current GPU; `defines` become its macros.

    Compiled once per content of the sources, defines, GPU architecture and compiler. least: the compute
    capability that its instructions need, without the dot. Raises UserError (MACHINE) for an older GPU,
    without nvcc, or with the compiler's message if it fails or takes too long.
    """
    architecture = _architecture()
    if problem := _too_old(source, architecture, least):
        raise UserError(
            problem,
            f"the scope cuda_graphs, or {_WITHOUT_KERNELS}, which need none of its instructions",
            ExitCode.MACHINE,
        )
    return _load(source, tuple(sorted((defines or {}).items())), architecture)


def obstacle(source: Path, least: int = LEAST) -> str | None:
    """Why there can't be a `library` of `source` here, but for what the compiler finds; None if there can."""
    return _too_old(source, _architecture(), least) or _no_compiler()


def command(source: Path, output: Path, defines: Mapping[str, int | str], architecture: str) -> list[str]:
    """The compiler's command line. architecture: compute capability without the dot, like `90a`."""
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    macros = [f"-D{name}={value}" for name, value in sorted(defines.items())]
    return [_nvcc(), *FLAGS, target, *macros, "-o", str(output), str(source)]


def check(code: int, what: str) -> None:
    """Raise RuntimeError if a launcher returned something else than cudaSuccess."""
    if code != 0:
        raise RuntimeError(f"{what} failed with CUDA error {code}")


def headers() -> list[Path]:
    """All headers: a source may include any of them."""
    return sorted(KERNELS.rglob("*.cuh"))


@cache
def _load(source: Path, defines: tuple[tuple[str, int | str], ...], architecture: str) -> ctypes.CDLL:
    target = _cache_folder() / f"{source.stem}-{_key(source, defines, architecture)}.so"
    if not target.is_file():
        _compile(source, target, dict(defines), architecture)
    return ctypes.CDLL(str(target))


def _key(source: Path, defines: tuple[tuple[str, int | str], ...], architecture: str) -> str:
    """Of all that the library depends on."""
    key = hashlib.sha256(repr((defines, architecture, FLAGS, _version(_nvcc()))).encode())
    for file in [source, *headers()]:
        key.update(file.read_bytes())
    return key.hexdigest()[:16]


def _compile(source: Path, target: Path, defines: Mapping[str, int | str], architecture: str) -> None:
    print(f"compiling {source.name} for sm_{architecture} (once)", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        hint = "XDG_CACHE_HOME=/a/folder/that/can/be/written"
        raise UserError(f"compiled kernels can't be kept: {problem}", hint, ExitCode.STORAGE) from None
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    line = command(source, unfinished, defines, architecture)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        problem = f"it did not end within {TIMEOUT_S} s"
    else:
        problem = "" if done.returncode == 0 else (done.stderr.strip() or f"it ended with {done.returncode}")
    if problem:
        unfinished.unlink(missing_ok=True)
        raise UserError(
            f"nvcc could not compile {source.name}: {problem[:2000]}",
            f"the command was: {' '.join(line)}",
            ExitCode.MACHINE,
        )
    unfinished.replace(target)  # whoever compiles at the same time writes the same


@cache
def _nvcc() -> str:
    if found := tools.find("nvcc", tools.NVCC_PLACES):
        return str(found)
    raise UserError(
        "the CUDA kernels have to be compiled, and no nvcc was found in $NVCC, PATH or /usr/local/cuda",
        tools.NVCC_HINT,
        ExitCode.MACHINE,
    )


@cache
def _no_compiler() -> str | None:
    try:
        _nvcc()
    except UserError as problem:
        return str(problem)
    return None


@cache
def _version(nvcc: str) -> str:
    return subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout


def _too_old(source: Path, architecture: str, least: int) -> str | None:
    found = int(architecture.rstrip("a"))
    if found >= least:
        return None
    return f"{source.name} needs a GPU of compute capability {least / 10} or later; this one has {found / 10}"


def _architecture() -> str:
    import torch

    major, minor = torch.cuda.get_device_capability()
    # From Hopper on, the instructions of one generation only are behind the suffix.
    return f"{major}{minor}" + ("a" if major >= 9 else "")


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpu-gap-harness" / "kernels"
