"""`python -m harness.doctor`: what this machine has, what it lacks, and what to do about each lack."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from harness.errors import ExitCode, UserError, not_installed

try:
    import pynvml
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as missing:
    not_installed(missing)

from harness import gpu_metrics, ncu, nsys, processes, tools
from harness.capture.nsys import check_ranges

T = TypeVar("T")

OK, WARN, MISSING = "ok", "warn", "missing"
REQUIRED = ("torch",)  # without it nothing runs

_PATIENCE_S = 120
_LEAST_FREE_BYTES = 2 * 10**9
_TORCH_FACTS = """\
import json, torch
print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available()]))
"""
_TWO_LINES = """\
import nvtx
with nvtx.annotate("doctor", domain="harness"): pass
"""
_NVIDIA_PARAMS = Path("/proc/driver/nvidia/params")
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


@dataclass(frozen=True)
class Check:
    """One fact about the machine: `status` is ok, warn or missing; `advice` says what to do about it."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """All checks, in the order shown. Never raises: a check that fails says so."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("GPU", _gpu),
        ("driver", _driver),
        ("python", _python),
        ("torch", _torch),
        ("nvcc", _nvcc),
        ("nsys", _nsys),
        ("ncu", _ncu),
        ("GPU metrics", _gpu_metrics),
        ("perf events", _perf_events),
        ("disk space", _disk_space),
    ]
    return [_guarded(name, check) for name, check in checks]


def usable(checks: list[Check]) -> bool:
    return not any(check.status == MISSING and check.name in REQUIRED for check in checks)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.doctor",
        description=__doc__,
        epilog="exit codes: 0 the project can be used here (with or without a GPU) · 4 it can't · "
        "130 interrupted",
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    arguments = parser.parse_args(argv)
    try:
        checks = examine()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if arguments.json:
        print(json.dumps({"usable": usable(checks), "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        Console().print(_table(checks))
    return ExitCode.OK if usable(checks) else ExitCode.MACHINE


def _table(checks: list[Check]) -> Table:
    colours = {OK: "green", WARN: "yellow", MISSING: "red"}
    table = Table("check", "status")
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for check in checks:
        status = Text(check.status, colours[check.status])
        table.add_row(check.name, status, Text(check.found), Text(check.advice))
    return table


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except UserError as error:
        return Check(name, MISSING, str(error), error.hint)
    except Exception as error:
        return Check(name, WARN, f"could not be checked: {type(error).__name__}: {error}")


def _gpu() -> Check:
    try:
        names = _nvml(lambda: [pynvml.nvmlDeviceGetName(handle) for handle in _devices()])
    except pynvml.NVMLError as error:
        names, why = [], str(error)
    else:
        why = "the driver sees no GPU"
    if names:
        return Check("GPU", OK, ", ".join(names))
    return Check("GPU", MISSING, why, "runs use the CPU, and gaps are shown from recorded GPU traces")


def _driver() -> Check:
    try:
        driver, cuda = _nvml(
            lambda: (pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion())
        )
    except pynvml.NVMLError as error:
        advice = "with an NVIDIA GPU: install its driver (in a container: start it with --gpus all)"
        return Check("driver", MISSING, str(error), advice)
    return Check("driver", OK, f"{driver}, CUDA {cuda // 1000}.{cuda % 1000 // 10}")


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info >= (3, 14):
        return Check("python", WARN, version, "not tried; use Python 3.11, 3.12 or 3.13")
    return Check("python", OK, f"{version} ({sys.executable})")


def _torch() -> Check:
    """In a process of its own: importing torch takes seconds, and a broken build can crash."""
    done = subprocess.run(
        [sys.executable, "-c", _TORCH_FACTS], capture_output=True, text=True, timeout=_PATIENCE_S
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"import torch: exit code {done.returncode}"]
        return Check("torch", MISSING, lines[-1], "make run, which sets up .venv, or pip install torch")
    version, cuda, available = json.loads(done.stdout.splitlines()[-1])
    build = f"built for CUDA {cuda}" if cuda else "built for the CPU"
    if available:
        return Check("torch", OK, f"{version}, {build}, the GPU can be used")
    found = f"{version}, {build}, no GPU can be used"
    with suppress(pynvml.NVMLError):
        if _nvml(_devices):
            why = "its CUDA is newer than the driver" if cuda else "it is a build for the CPU"
            return Check("torch", WARN, found, f"there is a GPU, but torch can't use it: {why}")
    return Check("torch", OK, found)


def _nvcc() -> Check:
    """What compiles the project's own kernels."""
    if found := tools.find("nvcc", tools.NVCC_PLACES):
        answer = tools.ask([found, "--version"], "does not start", tools.NVCC_HINT)
        return Check("nvcc", OK, f"{answer.strip().splitlines()[-1]} ({found})")
    return Check("nvcc", MISSING, "nvcc was not found on this machine", tools.NVCC_HINT)


def _nsys() -> Check:
    """Found is not enough: half-installed ones are common. Record a two-line program and count its ranges."""
    found = nsys.require()
    version = nsys.version(found)
    with TemporaryDirectory() as folder:
        program = Path(folder) / "two_lines.py"
        program.write_text(_TWO_LINES)
        stem = Path(folder) / "trace"
        _record(nsys.profile_command(found, [sys.executable, str(program)], stem, window=False))
        left_unfinished = not stem.with_suffix(".nsys-rep").exists()
        trace = nsys.finish(found, stem)
        check_ranges(trace, version)
        with closing(sqlite3.connect(trace)) as export:
            (ranges,) = export.execute("SELECT count(*) FROM NVTX_EVENTS WHERE eventType = 59").fetchone()
    works = f"{version} at {found}, recorded {ranges} of 1 range"
    if left_unfinished:
        works += ", and its recording had to be finished by the harness"
    return Check("nsys", OK if ranges == 1 else WARN, works)


def _record(command: list[str]) -> None:
    """Run a recording that should take seconds; one that hangs is ended with all its helpers."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        child.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"nsys hangs: no recording of a two-line program within {_PATIENCE_S} s") from None
    finally:
        processes.end(child)


def _ncu() -> Check:
    found = ncu.require()
    return Check("ncu", OK, f"{ncu.version(found)} at {found}")


def _gpu_metrics() -> Check:
    """The driver's rule on hardware counters, and whether nsys can then sample them."""
    name = "GPU metrics"
    try:
        parameters = dict(
            line.split(": ", 1) for line in _NVIDIA_PARAMS.read_text().splitlines() if ": " in line
        )
    except OSError:
        return Check(
            name, MISSING, "no NVIDIA kernel driver is loaded", "needs a GPU; everything else works without"
        )
    open_to_all = parameters.get("RmProfilingAdminOnly") == "0"
    rule = f"hardware counters are {'open to all users' if open_to_all else 'for administrators only'}"
    support = gpu_metrics.probe(nsys.require())
    if support.device is None:
        return Check(name, WARN, f"{rule}; {support.why}", support.advice)
    return Check(name, OK, f"{rule}; nsys samples GPU {support.device} ({support.option})")


def _perf_events() -> Check:
    level = int(_PARANOID.read_text())
    found = f"kernel.perf_event_paranoid = {level}"
    if level <= 2:
        return Check("perf events", OK, found)
    return Check(
        "perf events", WARN, found, "only nsys's CPU sampling, unused here, needs sysctl -w of 2 or less"
    )


def _disk_space() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free >= _LEAST_FREE_BYTES:
        return Check("disk space", OK, found)
    return Check("disk space", WARN, found, "traces need up to 1 GB: free some, or outputs=FOLDER elsewhere")


def _devices() -> list[Any]:
    return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]


def _nvml(question: Callable[[], T]) -> T:
    pynvml.nvmlInit()
    try:
        return question()
    finally:
        pynvml.nvmlShutdown()


if __name__ == "__main__":
    sys.exit(main())
