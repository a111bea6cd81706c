"""One run, from its plan to its record: measure, trace, analyse, judge, store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf
from rich.console import Console

from harness import digest, page, processes, recorded, report, verdict
from harness.errors import ExitCode, UserError, disk_is_full
from harness.metrics import AGREEMENT
from harness.plan import MEASURE_JSON, REPLAYED_JSON, TRACED_JSON, Plan
from harness.progress import Bar
from harness.record import Record, code_label, create_folder, day, drop_ballast, utc_now
from harness.store import Store

if TYPE_CHECKING:
    from analysis.html import Traced
    from analysis.plots import Stamp

# Less than this left on the disk when a run fails means that the disk is why.
_FULL_BYTES = 64 * 1024


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
            return _Run(plan, store, _start(plan, store, command, overrides), out).execute()
    finally:
        store.close()


def error_of(record: Record) -> UserError | None:
    """The error that a run ended with."""
    if record.error is None:
        return None
    return UserError(record.error["message"], record.error["hint"], ExitCode(record.error["exit_code"]))


def stamp_of(record: Record, profiled: bool) -> Stamp:
    """The caption of figures made from a run."""
    from analysis.plots import Stamp

    git = record.environment["git"]
    code = code_label(git["commit"], git["dirty"])
    return Stamp(record.environment["machine"], code, day(record.started_utc), profiled)


def _finished(plan: Plan, store: Store) -> Record | None:
    found = store.newest_finished(scope=plan.scope, fingerprint=plan.fingerprint)
    return Record.load(plan.outputs / found) if found else None


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
class _Run:
    plan: Plan
    store: Store
    record: Record
    out: Console

    def __post_init__(self) -> None:
        self.folder = self.plan.outputs / self.record.id
        self.log = self.folder / "log.txt"
        self.plots = self.folder / "plots"
        self.report = report.Report(self.out)
        self.detail: Traced | None = None

    def execute(self) -> Record:
        self.out.print(
            f"{self.record.scope} on {self.plan.device}: {self.folder}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        try:
            measured = self._measure()
            self._trace(measured)
            self._judge(measured)
            self._page()
            self.record.status = "finished"
        except KeyboardInterrupt:
            self.record.fail(UserError("interrupted", exit_code=ExitCode.INTERRUPTED), "interrupted")
        except Exception as error:
            self.record.fail(self._explain(error))
        self._finish()
        return self.record

    def _measure(self) -> dict[str, Any]:
        """The child without a profiler: all latencies and the transcripts come from it."""
        measured = self._child(self.plan.measure_command(self.folder), MEASURE_JSON, "measuring")
        self.record.metrics |= digest.latency(measured) | digest.error_rates(measured)
        self.record.word_errors = measured["word_errors"]
        self.report.say(report.transcript_lines(measured["transcripts"]))
        if self.record.word_errors:
            self.report.say(report.word_error_lines(self.record.word_errors))
        for note in measured["workload"].get("notes", []):
            self.report.say(f"note: {note}")
        title = f"Latency without a profiler, {len(measured['iterations'])} iterations"
        self.report.say(report.latency_table(self.record.metrics, title))
        if self.plan.device == "cuda":
            self.record.metrics |= digest.floor(measured, self.plan.environment["gpu"])
        self.report.say_if(report.floor_sentence(self.record.metrics))
        self._add(digest.latency_plot(measured, self.plots, stamp_of(self.record, profiled=False)))
        return measured

    def _trace(self, measured: dict[str, Any]) -> None:
        """The child under the profiler: gaps, phases and kernels come from it."""
        from analysis.text import tables

        command = self.plan.trace_command(self.folder)
        self.record.capture["command"] = command
        if not command:
            self.report.say("capture=none: no trace, so nothing is known about gaps.")
            return
        for note in self.plan.capture.notes(self.plan.device):
            self.report.say(f"note: {note}")
        traced = self._child(command, TRACED_JSON, f"tracing ({self.plan.capture.name})")
        with self.out.status("exporting the trace ..."):
            trace = self.plan.capture.finish(self.folder)
        self.record.capture["trace"] = trace.name
        self.record.metrics |= digest.overhead(measured, traced)
        self._replay()
        if self.plan.device == "cpu":
            self.report.say(tables(digest.host_account(trace)))
            self._recorded()
            return
        subject = page.subject_of(self.record, self.folder, self.record.scope)
        found = digest.digest(trace, self.plots, stamp_of(self.record, profiled=True), subject)
        self.detail = found.detail
        self.record.metrics |= found.metrics
        self.report.say(tables(found.account))
        self._add(found.plots)

    def _replay(self) -> None:
        """The child whose middle decode step is measured kernel by kernel; it gives no times of its own."""
        if command := self.plan.replay_command(self.folder):
            self.record.capture["replay_command"] = command
            self._child(command, REPLAYED_JSON, "measuring the kernels of one decode step (ncu, minutes)")
            self.record.capture["kernels"] = self.plan.capture.finish_replay(self.folder).name

    def _recorded(self) -> None:
        """Without a GPU there are no gaps to show: say so, and analyse the scope's recorded trace instead."""
        from analysis.text import tables

        self.report.say("No GPU here: gaps, idle time and kernels of this run could not be captured.")
        bundled = recorded.find(self.plan.config)
        if bundled is None:
            self.report.say("There is no recorded trace of these settings to show instead.")
            return
        stamp = replace(stamp_of(self.record, profiled=True), recorded=bundled.note)
        subject = page.recorded_subject(self.record.scope, bundled)
        found = digest.digest(bundled.trace, self.plots, stamp, subject)
        self.detail = found.detail
        self.record.capture["recorded"] = {
            "trace": str(bundled.trace.relative_to(recorded.FOLDER)),
            "note": bundled.note,
            "metrics": found.metrics | bundled.metrics,  # the whole run has the last word
        }
        self.report.say(f"Instead, the first steps of {bundled.model}, {bundled.note}:")
        self.report.say(tables(found.account))
        self.report.say_if(report.floor_sentence(bundled.metrics))
        self._add(found.plots)

    def _judge(self, measured: dict[str, Any]) -> None:
        hypothesis = cast(dict[str, Any], OmegaConf.to_container(self.plan.config.hypothesis))
        bundled = self.record.capture["recorded"]
        scope = self.plan.config.compare_with
        match = self._compare(scope, measured["transcripts"]) if scope else None
        self.record.tokens_match = match
        if match and match["agreement"] is not None:
            self.record.metrics[AGREEMENT] = match["agreement"]
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

        shown = page.of_run(self.record, self.plan.outputs, self.detail, self.plan.config.compare_with)
        self._add([html.write(self.folder / page.PAGE, shown)])

    def _compare(self, scope: str, transcripts: list[dict[str, Any]]) -> dict[str, Any]:
        other = self.store.newest_finished(scope=scope, inputs=self.record.inputs)
        if other is None:
            why = f"no finished run of {scope} with the same model, audio, reference texts and device"
            return {"run": None, "identical": None, "agreement": None, "why": why}
        theirs = json.loads((self.plan.outputs / other / MEASURE_JSON).read_text())
        return verdict.compare_tokens(transcripts, theirs["transcripts"], other)

    def _child(self, command: list[str], result: str, what: str) -> dict[str, Any]:
        """Run a child to its end and return what it wrote; UserError if it failed."""
        self.out.print(f"{what} ...", markup=False)
        with Bar(self.out, what) as bar:
            status = processes.run(command, self.log, bar)
        path = self.folder / result
        if not path.exists():
            # A child that is not killed always writes its results: else the profiler failed to start it.
            profiler = command[0] != sys.executable and not processes.killed(status)
            if profiler and (refusal := self._refusal()):
                raise refusal
            raise UserError(
                f"{what}: ended without results ({processes.describe_exit(status)})",
                f"see {self.log}" + (", and python -m harness.doctor" if profiler else ""),
                ExitCode.MACHINE if profiler else ExitCode.CHILD,
            )
        data = cast(dict[str, Any], json.loads(path.read_text()))
        if problem := data["error"]:
            hint = problem["hint"] or f"see {self.log}"
            raise UserError(problem["message"], hint, ExitCode(problem["exit_code"]))
        return data

    def _refusal(self) -> UserError | None:
        return self.plan.capture.refusal(self.folder, self.log.read_text(errors="replace"))

    def _add(self, plots: list[Path]) -> None:
        self.record.artifacts += [str(Path(path).relative_to(self.folder)) for path in plots]

    def _explain(self, error: Exception) -> UserError:
        """Any failure as something to tell the user. A full disk shows in many ways: ask the disk, too."""
        if disk_is_full(error) or shutil.disk_usage(self.folder).free < _FULL_BYTES:
            if self.record.capture["trace"] is None:  # a recording that can't be used any more makes room
                for path in self.folder.glob("trace.*"):
                    path.unlink(missing_ok=True)
            return UserError(
                f"the disk of {self.plan.outputs} is full; the run is marked as failed",
                "free some space, or outputs=FOLDER on another disk",
                ExitCode.STORAGE,
            )
        if isinstance(error, UserError):
            return error
        with suppress(OSError), open(self.log, "a") as log:
            traceback.print_exception(error, file=log)
        return UserError(f"unexpected {type(error).__name__}: {error}", f"see {self.log}", ExitCode.BUG)

    def _finish(self) -> None:
        """The record and its row, on the space that was kept for them."""
        self.record.finished_utc = utc_now()
        drop_ballast(self.folder)
        with suppress(OSError):
            self.report.write(self.folder / "report.txt")
        self.record.save(self.plan.outputs)
        self.store.put(self.record)
        for artifact in self.record.artifacts:
            if artifact.endswith((".png", ".html")):
                self.out.print(str(self.folder / artifact), markup=False, soft_wrap=True, highlight=False)
