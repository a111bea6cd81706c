"""The stamp of a run: on what, and from which code, it was made. Nothing here ever raises."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pynvml

PACKAGES = ("torch", "transformers", "librosa", "numpy", "nvtx", "hydra-core", "jiwer")
PROJECT = Path(__file__).resolve().parents[1]
CODE = (".", ":(exclude)results", ":(exclude)*.md")  # not what was measured by it, or the tables of that


def stamp(device: str) -> dict[str, Any]:
    """Facts about the code and the machine; `machine` is the processor of `device`, for captions."""
    found = gpu()
    processor = cpu()
    return {
        "machine": found["name"] if device == "cuda" and found else processor["model"],
        "git": git(PROJECT),
        "python": platform.python_version(),
        "packages": packages(),
        "gpu": found,
        "cpu": processor,
        "os": platform.platform(),
    }


def packages() -> dict[str, str | None]:
    """Installed versions by distribution name, None for what is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git(folder: Path) -> dict[str, Any]:
    """`commit`, whether the tree is `dirty`, and a hash of what differs from the commit, new files included.

    None for what can't be known, outside a repository.
    """
    # A copy of the tree without its history is what its sender says.
    if copied := os.environ.get("HARNESS_COMMIT"):
        return {"commit": copied, "dirty": None, "diff": None}

    def ask(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        with suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
            return answer.stdout if answer.returncode == 0 else None
        return None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None, "diff": None}
    changes = (ask("diff", "HEAD", "--", *CODE) or "").encode()
    for name in (ask("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE) or "").split("\0"):
        with suppress(OSError):
            changes += name.encode() + (folder / name).read_bytes() if name else b""
    diff = hashlib.sha256(changes).hexdigest()[:12] if changes else None
    return {"commit": commit.strip(), "dirty": diff is not None, "diff": diff}


def gpu() -> dict[str, Any] | None:
    """Name, driver, memory and clocks (MHz) of the first visible GPU through NVML; None if there is none.

    memory_bandwidth_bps is the peak: two transfers per clock over the whole bus, the formula of CUDA's Best
    Practices Guide ("Theoretical Bandwidth Calculation"); None if NVML leaves one of the two out.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = _first_visible()
        clocks = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}
        return {
            "name": _ask(pynvml.nvmlDeviceGetName, handle) or "unknown GPU",
            "uuid": _ask(pynvml.nvmlDeviceGetUUID, handle),
            "driver": _ask(pynvml.nvmlSystemGetDriverVersion),
            "cuda": _ask(pynvml.nvmlSystemGetCudaDriverVersion),
            "memory_bytes": getattr(_ask(pynvml.nvmlDeviceGetMemoryInfo, handle), "total", None),
            "clocks_mhz": {n: _ask(pynvml.nvmlDeviceGetClockInfo, handle, c) for n, c in clocks.items()},
            "max_clocks_mhz": {
                n: _ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, c) for n, c in clocks.items()
            },
            "memory_bandwidth_bps": _peak_bandwidth(
                _ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM),
                _ask(pynvml.nvmlDeviceGetMemoryBusWidth, handle),
            ),
            "pci_bus_id": getattr(_ask(pynvml.nvmlDeviceGetPciInfo, handle), "busId", None),
            "power_limit_mw": _ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        }
    except pynvml.NVMLError:
        return None
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def cpu() -> dict[str, Any]:
    """Model name, logical cores and memory of the host."""
    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "model": model,
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _first_visible() -> Any:
    """The GPU that CUDA calls number 0; NVMLError if there is none."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    return pynvml.nvmlDeviceGetHandleByUUID(first)


def _peak_bandwidth(clock_mhz: int | None, bus_bits: int | None) -> int | None:
    """Bytes per second: 3201 MHz over the H200's 6016 bits are 4.81 TB/s."""
    return 2 * clock_mhz * 10**6 * bus_bits // 8 if clock_mhz and bus_bits else None


def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
    """One NVML answer; drivers and virtual GPUs leave some of them out."""
    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None
