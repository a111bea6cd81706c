"""What profilers tell about a run: its trace, the recording with GPU metrics, the kernels of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import details, digest, ncu, page, recorded, report
from harness.capture.ncu import NCU_CSV
from harness.errors import ExitCode, UserError
from harness.job import Job
from harness.metrics import METRICS_OVERHEAD, OVERHEAD
from harness.plan import REPLAYED_JSON, SAMPLED_JSON, TRACED_JSON

PERFETTO = "trace.perfetto-trace.gz"


def trace(job: Job, measured: dict[str, Any]) -> None:
    """The children under a profiler. measured: the results of the one without, which theirs are held to."""
    from analysis.text import tables

    command = job.plan.trace_command(job.folder)
    job.record.capture["command"] = command
    if not command:
        job.report.say("capture=none: no trace, so nothing is known about gaps.")
        return
    for note in job.plan.capture.notes(job.plan.device):
        job.report.say(f"note: {note}")
    traced = job.child(command, TRACED_JSON, f"tracing ({job.plan.capture.name})")
    found = _finish(job, job.plan.capture.finish)
    job.record.capture["trace"] = found.name
    sampled = _sample(job, measured)
    _replay(job)
    if job.plan.device == "cpu":
        job.report.say(tables(digest.host_account(found)))
        _recorded(job)
        return
    subject = page.subject_of(job.record, job.folder, job.record.scope)
    stamp = digest.stamp_of(job.record, profiled=True)
    known = digest.digest(found, job.plots, stamp, subject, job.folder / PERFETTO)
    # Without GPU work it would compare nothing but two short and unsteady times of a CPU.
    job.record.metrics |= digest.overhead(OVERHEAD, measured, traced)
    job.record.metrics |= digest.by_token(known.metrics, traced)
    job.record.metrics |= digest.bytes_per_token(known.metrics, sampled)
    job.report.say(tables(known.account))
    job.report.say_if(report.memory_sentence(job.record.metrics))
    _keep(job, known)
    if known.perfetto:
        job.add([known.perfetto])
    else:
        job.report.say(f"For ui.perfetto.dev: python -m analysis export {found} --perfetto")


def _sample(job: Job, measured: dict[str, Any]) -> dict[str, Any] | None:
    """The child whose memory traffic is sampled; no gaps come from it. None if there is none."""
    if not (command := job.plan.sample_command(job.folder)):
        return None
    job.record.capture["metrics_command"] = command
    try:
        sampled = job.child(command, SAMPLED_JSON, "sampling GPU metrics (nsys)")
        job.record.capture["metrics"] = _finish(job, job.plan.capture.finish_sample).name
        job.record.metrics |= digest.overhead(METRICS_OVERHEAD, measured, sampled)
        return sampled
    except UserError as error:
        _do_without(job, error, "no GPU metrics, so nothing is known about memory bandwidth")
        return None


def _replay(job: Job) -> None:
    """The child of which one early decode step is measured kernel by kernel; it gives no times of its own."""
    if not (command := job.plan.replay_command(job.folder)):
        return
    job.record.capture["replay_command"] = command
    try:
        job.child(command, REPLAYED_JSON, "measuring the kernels of one decode step (ncu, minutes)")
        job.record.capture["kernels"] = job.plan.capture.finish_replay(job.folder).name
    except UserError as error:
        launches = ncu.launches(job.folder / NCU_CSV)
        if launches:
            job.record.capture["kernels"] = NCU_CSV
        kept = f"{launches} of the kernels" if launches else "none of the kernels"
        _do_without(job, error, f"{kept} of a step could be measured")


def _do_without(job: Job, error: UserError, lacking: str) -> None:
    """Say what a further child did not tell; only a full disk ends the run, which has its trace already."""
    if error.exit_code == ExitCode.STORAGE or job.disk_is_full(error):
        raise error
    hint = f" (try: {error.hint})" if error.hint else ""
    job.report.say(f"note: {lacking}: {error}{hint}")


def _finish(job: Job, finish: Callable[[Path], Path]) -> Path:
    with job.out.status("exporting the trace ..."):
        return finish(job.folder)


def _recorded(job: Job) -> None:
    """Without a GPU there are no gaps to show: say so, and analyse the scope's recorded trace instead."""
    from analysis.text import tables

    job.report.say("No GPU here: gaps, idle time and kernels of this run could not be captured.")
    bundled = recorded.find(job.plan.config)
    if bundled is None:
        job.report.say(
            "There is no trace of these settings that was recorded on a GPU, so there is none to "
            "show instead."
        )
        return
    stamp = replace(digest.stamp_of(job.record, profiled=True), recorded=bundled.note)
    subject = page.recorded_subject(job.record.scope, bundled)
    known = digest.digest(bundled.trace, job.plots, stamp, subject)
    metrics = known.metrics | bundled.metrics  # the whole run has the last word
    job.record.capture["recorded"] = {
        "trace": str(bundled.trace.relative_to(recorded.FOLDER)),
        "note": bundled.note,
        "metrics": metrics,
    }
    job.report.say(f"Instead, the first window of {bundled.model}, {bundled.note}:")
    job.report.say(tables(known.account))
    job.report.say_if(report.floor_sentence(bundled.metrics))
    job.report.say_if(report.memory_sentence(metrics))
    _keep(job, known)


def _keep(job: Job, known: digest.Digest) -> None:
    """What pages and figures of the run take from its trace."""
    job.detail = known.detail
    job.add(known.plots)
    details.save(known.detail, job.folder)
