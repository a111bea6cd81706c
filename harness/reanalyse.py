"""`python -m harness.reanalyse RUN ...`: analyse runs again, from what was measured and recorded then.

RUN is a run's folder (<outputs>/<scope>/<utc>, whole: a published one lacks what is needed), for one whose
analysis failed, or to see an old recording by the analysis of today. Nothing is measured or recorded again;
metrics, verdict, plots and reports are made anew, and the record keeps the code that the run was made from
beside the code that analysed it. A run that can't be analysed stays as it was.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness import environment
from harness.capture.kept import KeptCapture
from harness.errors import ExitCode, UserError
from harness.job import Job, results_of
from harness.plan import MEASURE_JSON, TRACED_JSON, Plan
from harness.record import Record, utc_now
from harness.report import screen
from harness.run import Run
from harness.store import Store


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: that of the last run that could not be analysed, 0 if there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.reanalyse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    code: int = ExitCode.OK
    for folder in parser.parse_args(argv).runs:
        try:
            reanalyse(folder.resolve(), screen())
        except UserError as error:
            print(error.report(), file=sys.stderr)
            code = error.exit_code
        except (OSError, sqlite3.Error) as error:
            print(UserError(f"{folder} can't be analysed: {error}").report(), file=sys.stderr)
            code = ExitCode.STORAGE
    return code


def reanalyse(folder: Path, out: Console) -> Record:
    """The new record of the run in `folder`. UserError if it isn't one, is still being made, or left too
    little; its record is then the old one."""
    outputs = folder.parent.parent
    Record.load(folder)  # before an index is made beside what isn't a run
    store = Store(outputs)
    try:
        old = Record.load(folder)
        if outputs / old.id != folder:
            raise UserError(
                f"{folder} is the run {old.id}, which has to lie in a folder of that name",
                f"mv it to {old.id}",
            )
        if old.status == "running":
            raise UserError(f"{folder} is still being made", "wait for its end")
        job = _KeptJob(_plan(folder, old), _emptied(old), out)
        job.check(old.capture["command"])
        Run(store, job).again()
        return job.record
    finally:
        store.close()


class _KeptJob(Job):
    """A job whose children ran before."""

    def check(self, traced: Sequence[str]) -> None:
        """UserError before anything is drawn, if what the analysis starts from is not there or damaged.
        traced: the command of the profiled child; empty if there was none."""
        self.child([], MEASURE_JSON, "measuring")
        if traced:
            self.child([], TRACED_JSON, f"tracing ({self.plan.capture.name})")
            self.plan.capture.finish(self.folder)

    def child(self, command: list[str], result: str, what: str) -> dict[str, Any]:
        path = self.folder / result
        if not path.is_file():
            raise UserError(
                f"{path} is not there, which {what} was to write: the run ended before, the file was "
                "deleted, or this is a published run, which keeps less",
                "make the run again",
                ExitCode.CHILD,
            )
        return results_of(path, self.log)


def _plan(folder: Path, record: Record) -> Plan:
    config = cast(DictConfig, OmegaConf.load(folder / "config.yaml"))
    config.outputs = str(folder.parent.parent)  # which may have been another when the run was made
    return Plan(config, KeptCapture(record.capture), record.environment, record.fingerprint, record.inputs)


def _emptied(record: Record) -> Record:
    """A run's record as before its analysis, stamped with the code that makes it now."""
    code = environment.git(environment.PROJECT)
    return replace(
        record,
        capture=json.loads(json.dumps(record.capture))
        | dict.fromkeys(("trace", "metrics", "kernels", "recorded")),
        analysed={"utc": utc_now(), "commit": code["commit"], "dirty": code["dirty"]},
        metrics={},
        verdict=[],
        tokens_match=None,
        word_errors=None,
        artifacts=[],
        error=None,
    )


if __name__ == "__main__":
    sys.exit(main())
