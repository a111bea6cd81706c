"""Nsight Compute on this machine: where it is, its call, and whether what it wrote holds measured kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import tools
from harness.errors import ExitCode, UserError
from harness.gpu_metrics import PERMISSION_HINT
from harness.phases import DECODE_STEP, DOMAIN

INSTALL_HINT = (
    "install Nsight Compute (https://developer.nvidia.com/nsight-compute; the CUDA toolkit has it), or set "
    "NCU=/path/to/ncu, or use capture=nsys"
)

# Below PATH in this order, the newest version of each first.
_INSTALLATIONS = (
    "/opt/nvidia/nsight-compute/*/ncu",
    "/usr/local/cuda*/bin/ncu",
    "/usr/local/NVIDIA-Nsight-Compute*/ncu",
    "/usr/lib/nsight-compute/ncu",
)

# Why a warp that could not issue waited, of the section WarpStateStats.
STALL_REASONS = (
    "long_scoreboard",
    "short_scoreboard",
    "barrier",
    "mio_throttle",
    "lg_throttle",
    "math_pipe_throttle",
    "wait",
    "no_instruction",
    "not_selected",
    "selected",
    "drain",
    "membar",
    "branch_resolving",
    "dispatch_stall",
    "tex_throttle",
    "sleeping",
)
METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    *(f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio" for reason in STALL_REASONS),
    "launch__grid_size",
    "launch__block_size",
    "launch__waves_per_multiprocessor",
)

_REPLAY = (
    "--profile-from-start",
    "off",  # the child opens the window around one decode step
    "--nvtx",
    "--nvtx-include",
    f"{DOMAIN}@{DECODE_STEP}/",
    "--graph-profiling",
    "node",
    # Clocks as they are without ncu. Caches are emptied before each pass, ncu's default: a pass repeats a
    # kernel on its own data, which the pass before would have left in L2.
    "--clock-control",
    "none",
    "--cache-control",
    "all",
)


def find(root: Path = Path("/")) -> Path | None:
    """The ncu to use: $NCU (UserError if it isn't a program), else PATH, else known folders in `root`."""
    return tools.find("ncu", _INSTALLATIONS, root)


def require() -> Path:
    """`find`, or UserError with what to install."""
    if ncu := find():
        return ncu
    raise UserError("ncu (Nsight Compute) was not found on this machine", INSTALL_HINT, ExitCode.MACHINE)


def version(ncu: Path) -> str:
    """The version, like "2025.3.1.0"; UserError if ncu doesn't start."""
    return tools.version(ncu, INSTALL_HINT)


def replay_command(ncu: Path, program: Sequence[str], out: Path) -> list[str]:
    """The command line that measures the kernels of `program`'s window one by one, each repeated until all
    METRICS are counted, and writes ncu's raw page to `out`: CSV, a row per launch, units in the second row.
    """
    return [
        str(ncu),
        *_REPLAY,
        "--metrics",
        ",".join(METRICS),
        *("--csv", "--page", "raw", "--print-units", "base", "--log-file"),
        str(out).replace("%", "%%"),  # ncu expands %p, %h and others
        *program,
    ]


def launches(out: Path) -> int:
    """How many launches of kernels `out` holds, whether or not ncu came to its end."""
    lines = _lines(out)
    header = next((n for n, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    return sum(line.startswith('"') for line in lines[header + 2 :])  # below header and units


def check(out: Path) -> None:
    """UserError (MACHINE), in ncu's words, unless `out` holds launches and ncu came to its end."""
    lines, measured = _lines(out), launches(out)
    errors, warnings = (
        [line.removeprefix(mark) for line in lines if line.startswith(mark) and "== Note:" not in line]
        for mark in ("==ERROR== ", "==WARNING== ")
    )
    if measured and not errors:
        return
    if any("ERR_NVGPUCTRPERM" in line for line in errors):
        raise UserError(
            "ncu has no permission to read the GPU's performance counters (ERR_NVGPUCTRPERM)",
            PERMISSION_HINT,
            ExitCode.MACHINE,
        )
    reason = "; ".join(errors or warnings) or f"it says nothing in {out}"
    raise UserError(
        f"ncu failed after {measured} kernels: {reason}",
        f"see {out} and the log beside it, or capture=nsys",
        ExitCode.MACHINE,
    )


def _lines(out: Path) -> list[str]:
    return out.read_text(errors="replace").splitlines() if out.exists() else []
