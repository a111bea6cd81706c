"""One run, from its plan to its record: measure, trace, analyse, judge, store."""

from __future__ import annotations

import shutil
import sqlite3
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import OmegaConf
from rich.console import Console

from analysis.units import counted
from harness import digest, page, processes, reference, report, tracing, verdict
from harness.errors import ExitCode, UserError, interrupted
from harness.job import Job, results_of
from harness.metrics import AGREEMENT, SPEEDUP
from harness.plan import MEASURE_JSON, Plan
from harness.record import Record, create_folder, drop_ballast, utc_now
from harness.store import Store


def execute(plan: Plan, command: list[str], overrides: list[str], out: Console) -> Record:
    """Make one run and return its record, whatever its status. UserError only if nothing could be stored."""
    store = Store(plan.outputs)
    try:
        if plan.config.resume and (done := _finished(plan, store)):
            out.print(
                f"resume: {done.id} is finished and was made by the same code and settings", markup=False
            )
            return done
        gpu = plan.environment["gpu"]
        lock = f"gpu-{gpu['uuid']}" if plan.device == "cuda" else None
        with processes.alone(lock, out) if lock else nullcontext():
            return Run(store, Job(plan, _start(plan, store, command, overrides), out)).execute()
    finally:
        store.close()


def error_of(record: Record) -> UserError | None:
    """The error that a run ended with."""
    if record.error is None:
        return None
    return UserError(record.error["message"], record.error["hint"], ExitCode(record.error["exit_code"]))


def _finished(plan: Plan, store: Store) -> Record | None:
    found = next(store.finished(scope=plan.scope, fingerprint=plan.fingerprint), None)
    return Record.load(plan.outputs / found["id"]) if found else None


def _start(plan: Plan, store: Store, command: list[str], overrides: list[str]) -> Record:
    """The run's folder, configuration, record and row."""
    folder = None
    try:
        run = create_folder(plan.outputs, plan.scope)
        folder = plan.outputs / run
        record = Record(
            id=run,
            scope=plan.scope,
            started_utc=utc_now(),
            fingerprint=plan.fingerprint,
            inputs=plan.inputs,
            command=command,
            overrides=overrides,
            model=plan.model,
            device=plan.device,
            environment=plan.environment,
            capture={
                "backend": plan.capture.name,
                "command": [],
                "trace": None,
                "metrics": None,
                "kernels": None,
                "recorded": None,
            },
        )
        OmegaConf.save(plan.config, folder / "config.yaml")
        record.save(plan.outputs)
        store.put(record)
        return record
    except (OSError, sqlite3.Error) as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"cannot write to {plan.outputs}: {error}",
            "outputs=FOLDER with a folder that is writable and has space",
            ExitCode.STORAGE,
        ) from None


@dataclass
class Run:
    """The steps of a run, whose children write into its folder."""

    store: Store
    job: Job

    def __post_init__(self) -> None:
        self.plan, self.record, self.out = self.job.plan, self.job.record, self.job.out
        self.folder, self.report = self.job.folder, self.job.report

    def execute(self) -> Record:
        self.out.print(
            f"{self.record.scope} on {self.plan.device}: {self.folder}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        try:
            self._steps()
            self.record.status = "finished"
        except (Exception, KeyboardInterrupt) as error:
            problem = self._explain(error)
            self.record.fail(problem, "interrupted" if interrupted(error) else "failed")
            if problem.exit_code == ExitCode.STORAGE:
                self._make_room()
        self.record.finished_utc = utc_now()
        self._keep()
        return self.record

    def again(self) -> None:
        """The steps from what the children left; the record is written if all of them worked."""
        try:
            self._steps()
        except Exception as error:
            raise self._explain(error) from None
        self.record.status = "finished"
        self._keep()

    def _steps(self) -> None:
        measured = self._measure()
        tracing.trace(self.job, measured)
        self._judge(measured)
        self._page()

    def _measure(self) -> dict[str, Any]:
        """The child without a profiler: all latencies and the transcripts come from it."""
        measured = self.job.child(self.plan.measure_command(self.folder), MEASURE_JSON, "measuring")
        self.record.metrics |= digest.latency(measured) | digest.error_rates(measured)
        self.record.word_errors = measured["word_errors"]
        self.report.say(report.transcript_lines(measured["transcripts"]))
        if self.record.word_errors:
            self.report.say(report.word_error_lines(self.record.word_errors))
        for note in measured["workload"].get("notes", []):
            self.report.say(f"note: {note}")
        title = f"Latency without a profiler, {counted(len(measured['iterations']), 'iteration')}"
        self.report.say(report.latency_table(self.record.metrics, title))
        if self.plan.device == "cuda":
            self.record.metrics |= digest.floor(measured, self.plan.environment["gpu"])
        self.report.say_if(report.floor_sentence(self.record.metrics))
        stamp = digest.stamp_of(self.record, profiled=False)
        self.job.add(digest.latency_plot(measured, self.job.plots, stamp))
        return measured

    def _judge(self, measured: dict[str, Any]) -> None:
        hypothesis = cast(dict[str, Any], OmegaConf.to_container(self.plan.config.hypothesis))
        bundled = self.record.capture["recorded"]
        scope = self.plan.config.compare_with
        match = self._compare(measured) if scope else None
        self.record.tokens_match = match
        self.record.verdict = verdict.judge(
            hypothesis["expect"], self.record.metrics, self.plan.device, bundled
        )
        if self.record.verdict:
            self.report.say(report.verdict_table(self.record.verdict, hypothesis["claim"]))
        if match:
            self.report.say(verdict.tokens_sentence(scope, match))

    def _page(self) -> None:
        """Everything about the run for a browser, beside the run that it is compared with."""
        from analysis import html

        shown = page.of_run(self.record, self.plan.outputs, self.job.detail)
        self.job.add([html.write(self.folder / page.PAGE, shown)])

    def _compare(self, measured: dict[str, Any]) -> dict[str, Any]:
        """The tokens beside those of the run to compare with, and how much faster they came."""
        try:
            other = reference.find(self.store, self.record, self.plan.config)
        except UserError as error:
            return verdict.not_compared(str(error))
        folder = self.plan.outputs / other
        try:
            theirs, record = results_of(folder / MEASURE_JSON, folder), Record.load(folder)
        except UserError as error:
            return verdict.not_compared(f"its newest run is damaged: {error}")
        match = verdict.compare_tokens(measured["transcripts"], theirs["transcripts"], other)
        if match["agreement"] is not None:
            self.record.metrics[AGREEMENT] = match["agreement"]
            self.record.metrics |= self._speedup(record, theirs["workload"].get("batch", 1))
        return match

    def _speedup(self, theirs: Record, batch: int) -> dict[str, float]:
        """How many times faster a token is than in another run, which decoded `batch` windows together."""
        before, now = (record.metrics.get("ms_per_token") for record in (theirs, self.record))
        where = theirs.environment["machine"]
        if where != self.record.environment["machine"]:
            self.report.say(f"note: no speedup: {theirs.id} was measured on another machine ({where})")
            return {}
        if batch != self.plan.config.get("batch", 1):  # a token of a batch is another thing
            self.report.say(f"note: no speedup: {theirs.id} was measured with batch={batch}")
            return {}
        return {SPEEDUP: before / now} if before and now else {}

    def _explain(self, error: BaseException) -> UserError:
        """Any failure as something to tell the user."""
        if interrupted(error):
            return UserError("interrupted", exit_code=ExitCode.INTERRUPTED)
        if self.job.disk_is_full(error):
            return UserError(
                f"the disk of {self.plan.outputs} is full",
                "free some space, or outputs=FOLDER on another disk",
                ExitCode.STORAGE,
            )
        if isinstance(error, UserError):
            return error
        with suppress(OSError), open(self.job.log, "a") as log:
            traceback.print_exception(error, file=log)
        return UserError(f"unexpected {type(error).__name__}: {error}", f"see {self.job.log}", ExitCode.BUG)

    def _make_room(self) -> None:
        """Delete the recordings that were not finished, which nothing can use."""
        for kind in ("trace", "metrics"):
            if self.record.capture[kind] is None:
                for path in self.folder.glob(f"{kind}.*"):
                    path.unlink(missing_ok=True)

    def _keep(self) -> None:
        """The record and its row, on the space that was kept for them."""
        drop_ballast(self.folder)
        with suppress(OSError):
            self.report.write(self.folder / "report.txt")
        self.record.save(self.plan.outputs)
        self.store.put(self.record)
        for artifact in self.record.artifacts:
            viewer = " (open in ui.perfetto.dev)" if artifact == tracing.PERFETTO else ""
            if viewer or artifact.endswith((".png", ".html")):
                where = f"{self.folder / artifact}{viewer}"
                self.out.print(where, markup=False, soft_wrap=True, highlight=False)
