"""`python -m harness.child measure|trace|sample|replay RUN`: one run's work, in its own process."""

from __future__ import annotations

import argparse
import ctypes
import gc
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from analysis.engine.collection import postponed
from harness import environment, workload
from harness.capture import capture_for
from harness.capture.ncu import STEP, OneStep, StepDone
from harness.errors import ExitCode, UserError, disk_is_full
from harness.phases import ITER, Annotator, CudaTimer, HostTimer, NvtxAnnotator, PhaseClock, SilentAnnotator
from harness.plan import MEASURE_JSON, REPLAYED_JSON, SAMPLED_JSON, TRACED_JSON
from harness.progress import report
from harness.record import write_json
from harness.workload import Workload

RESULTS = {
    "measure": MEASURE_JSON,
    "trace": TRACED_JSON,
    "sample": SAMPLED_JSON,
    "replay": REPLAYED_JSON,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.child", description=__doc__)
    parser.add_argument("role", choices=RESULTS)
    parser.add_argument("run", type=Path, help="a run folder with its config.yaml")
    parser.add_argument("--capture", help="the backend that traces this child, if not the configuration's")
    arguments = parser.parse_args(argv)
    role, run = arguments.role, arguments.run
    cfg = cast(DictConfig, OmegaConf.load(run / "config.yaml"))
    cfg.capture = arguments.capture or cfg.capture
    results = {"role": role, "device": cfg.device, "iterations": [], "transcripts": [], "error": None}
    code = ExitCode.OK
    try:
        results |= _replay(cfg) if role == "replay" else _perform(role, cfg, run)
    except Exception as error:
        traceback.print_exc()  # into the log
        problem = _explain(error, cfg.device)
        code = problem.exit_code
        results["error"] = {"message": str(problem), "hint": problem.hint, "exit_code": int(code)}
    write_json(run / RESULTS[role], results)
    return code


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, even killed: a measurement that nobody waits for
    would disturb the next. The profiler has such a signal from the harness, but hands none on to us."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _perform(role: str, cfg: DictConfig, run: Path) -> dict[str, Any]:
    capture = capture_for(cfg.capture, cfg.device)
    traced = role in ("trace", "sample")
    annotator: Annotator = capture.annotator() if traced else NvtxAnnotator()
    warmup, iterations = _counts(role, cfg)
    total = warmup + iterations
    work = _build(cfg)
    timer = CudaTimer() if cfg.device == "cuda" else HostTimer()
    try:
        for n in range(warmup):
            report(n, total, f"{role}: warm-up")
            _iterate(work, PhaseClock(timer, SilentAnnotator()), n)
        # A clock each, read when all are done: reading thousands of events takes as long as a gap.
        clocks = [PhaseClock(timer, annotator) for _ in range(iterations)]
        iter_ns = []
        with _no_collection(), capture.window(cfg.device, run) if traced else nullcontext():
            for n, clock in enumerate(clocks):
                report(warmup + n, total, f"{role}: iterations")
                iter_ns.append(_iterate(work, clock, n))
        report(total, total, f"{role}: results")
        transcripts = [] if traced else work.transcripts()
        return {
            "warmup": warmup,
            "iterations": [
                {"iter_ns": ns, "phases": _phases(clock), "counts": clock.counts}
                for ns, clock in zip(iter_ns, clocks, strict=True)
            ],
            "transcripts": transcripts,
            "word_errors": None if traced else workload.word_errors(work, transcripts),
            "workload": work.describe(),
            "environment": _environment(cfg.device),
        }
    finally:
        work.close()


def _build(cfg: DictConfig) -> Workload:
    with postponed():  # torch and transformers are half a million objects, walked through again and again
        return workload.load(cfg.workload).build(cfg, cfg.device)


def _counts(role: str, cfg: DictConfig) -> tuple[int, int]:
    """Warm-up and iterations of a role."""
    if role == "measure":
        return cfg.measure.warmup, cfg.measure.iterations
    return cfg.trace.warmup, cfg.trace.metric_iterations if role == "sample" else cfg.trace.iterations


def _replay(cfg: DictConfig) -> dict[str, Any]:
    """An iteration up to the end of the decode step that is measured; its times mean nothing."""
    work = _build(cfg)
    timer = CudaTimer() if cfg.device == "cuda" else HostTimer()

    def begun(number: int) -> int:
        annotator = OneStep(number)
        with suppress(StepDone):
            _iterate(work, PhaseClock(timer, annotator), 0)
        return annotator.steps

    try:
        report(0, 1, f"replay: decode step {STEP}, kernel by kernel")
        steps = begun(STEP)
        if steps == 0:
            raise UserError("ncu measures a decode step, and this workload has none", "capture=nsys")
        if steps <= STEP:  # it ended before: the last one then
            begun(steps - 1)
        return {"step": min(steps - 1, STEP), "workload": work.describe()}
    finally:
        work.close()


def _iterate(work: Workload, clock: PhaseClock, number: int) -> int:
    """One iteration; its time on the host in ns, with the final synchronise."""
    start = time.perf_counter_ns()
    with clock.phase(ITER, payload=number):
        work.run(clock)
    return time.perf_counter_ns() - start


def _phases(clock: PhaseClock) -> dict[str, list[int]]:
    """Durations in ns of the phases inside an iteration."""
    return {name: ns for name, ns in clock.take().items() if name != ITER}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold the garbage collector back: it would stop the host in the middle of an iteration."""
    gc.collect()
    with postponed():
        yield


def _environment(device: str) -> dict[str, Any]:
    stamp: dict[str, Any] = {"packages": environment.packages()}
    if device == "cuda":
        import torch

        # Read after the work, while the clocks are still those of the work.
        stamp |= {"cuda": torch.version.cuda, "gpu": environment.gpu()}
    return stamp


def _explain(error: Exception, device: str) -> UserError:
    if isinstance(error, UserError):
        return error
    if disk_is_full(error):
        return UserError(f"the disk is full: {error}", exit_code=ExitCode.STORAGE)
    if device == "cuda" and _cuda_fails():
        return UserError(
            f"PyTorch can't use the GPU: {str(error).splitlines()[0]}",
            "python -m harness.doctor says what is missing; device=cpu runs without the GPU",
            ExitCode.MACHINE,
        )
    if type(error).__name__ == "OutOfMemoryError":
        return UserError(
            f"out of GPU memory: {str(error).splitlines()[0]}", "a smaller model", ExitCode.MACHINE
        )
    return UserError(f"unexpected {type(error).__name__}: {error}", exit_code=ExitCode.BUG)


def _cuda_fails() -> bool:
    """Whether this PyTorch and this driver don't work together (a CPU build, a driver that is too old)."""
    import torch

    return not torch.cuda.is_available()


if __name__ == "__main__":
    _end_with_parent()
    status = main()
    gc.freeze()  # or the interpreter, before it ends, looks through all those objects for some to free
    sys.exit(status)
