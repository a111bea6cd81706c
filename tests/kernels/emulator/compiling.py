"""CUDA sources to libraries for the CPU, by g++; kept by content, like those of kernels/build.py."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from kernels import build
from tests.kernels.emulator.translate import translated

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-fPIC", "-g1", "-O2", "-pthread", "-fno-gnu-unique")
# Kernels alone are checked. They read bits of one type as another, as nvcc allows; sums aren't contracted, so
# that the result doesn't depend on the machine. -fsanitize=shift has g++ 12 compile `(a ? b : c)[d]` wrongly.
KERNEL_FLAGS = ("-fno-strict-aliasing", "-ffp-contract=off", "-include", "builtins.h")
KERNEL_FLAGS += ("-Wno-attributes", "-Werror=frame-larger-than=16384")
KERNEL_FLAGS += ("-fsanitize=bounds-strict,alignment", "-fno-sanitize-recover=all")
TIMEOUT_S = 300
Edits = tuple[tuple[str, str], ...]


def missing() -> str | None:
    """Why nothing can be emulated here, or None. With HARNESS_REQUIRE_GXX (CI) tests fail instead."""
    if shutil.which("g++") or os.environ.get("HARNESS_REQUIRE_GXX"):
        return None
    return "NOT TESTED: no g++, which compiles the CUDA kernels for a CPU"


@cache
def library(source: Path, defines: tuple[tuple[str, int | str], ...], edits: Edits) -> ctypes.CDLL:
    """The .cu file compiled for the CPU. edits: texts that have to be in it or in a header once
    translated, and what takes their place. Raises RuntimeError with g++'s words."""
    names = {source: source.name} | {path: str(path.relative_to(build.KERNELS)) for path in build.headers()}
    texts = {name: translated(path, name) for path, name in names.items()}
    for old, new in edits:
        if not any(old in text for text in texts.values()):
            raise ValueError(f"{old!r} is not in {source.name} or a header")
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    headers = {path.name: path.read_text() for path in sorted(HERE.glob("*.h"))}
    runtime = {path.name: path.read_text() for path in sorted(HERE.glob("*.cpp"))}

    def compile_runtime(folder: Path) -> Path:
        _gxx(folder, *FLAGS, f"-I{HERE}", "-c", *(str(HERE / name) for name in runtime))
        return _linked(folder, "-r", *(f"{Path(name).stem}.o" for name in runtime))

    def compile_all(folder: Path) -> Path:
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        macros = [f"-D{name}={value}" for name, value in defines]
        _gxx(folder, *FLAGS, *KERNEL_FLAGS, *macros, f"-I{HERE}", "-x", "c++", "-c", source.name)
        # Its parts find one another, whatever else the process has loaded.
        own = ("-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs")
        return _linked(folder, "-shared", *own, f"{source.stem}.o", str(common), "-ldl")

    common = _kept("runtime.o", (headers, runtime), compile_runtime)
    kept = _kept(f"{source.stem}.so", (headers, runtime, texts, defines, KERNEL_FLAGS), compile_all)
    loaded = ctypes.CDLL(str(kept))
    loaded.emulator_problem.restype = ctypes.c_char_p
    loaded.emulator_fault.restype = ctypes.c_size_t
    return loaded


def _kept(name: str, content: object, make: Callable[[Path], Path]) -> Path:
    """What `make` makes in a folder of this content, made once, also where several processes want it."""
    key = hashlib.sha256(repr((content, FLAGS, _version())).encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpu-gap-harness" / "emulated"
    base.mkdir(parents=True, exist_ok=True)
    target = base / f"{Path(name).stem}-{key}{Path(name).suffix}"
    with (base / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_file():
            with tempfile.TemporaryDirectory(dir=base) as folder:
                make(Path(folder)).replace(target)
    return target


def _linked(folder: Path, *arguments: str) -> Path:
    _gxx(folder, *arguments, "-o", "linked")
    return folder / "linked"


def _gxx(folder: Path, *arguments: str) -> None:
    line: Sequence[str] = ("g++", *arguments)
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}\n{done.stderr[:4000]}")


@cache
def _version() -> str:
    return subprocess.run(["g++", "-v"], capture_output=True, text=True).stderr
