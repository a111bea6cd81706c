"""`python -m harness.publish OUTPUTS --into FOLDER`: keep the newest finished runs to be committed.

FOLDER gets the same <scope>/<utc>/ as OUTPUTS, without what is large or names the recording machine's paths:
the record, the configuration, the raw latencies, the reports, the PNG plots, the start of the trace and of
the recording with GPU metrics, and what ncu measured; and FOLDER/report.html shows all of them side by side.
"""

from __future__ import annotations

import argparse
import html
import json
import lzma
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis import TraceError
from harness.environment import PROJECT
from harness.errors import ExitCode, UserError
from harness.phases import DECODE, DECODE_STEP
from harness.plan import MEASURE_JSON
from harness.record import Record
from harness.results import newest_per_scope
from harness.store import NAME, Store

TEXTS = ("run.json", "config.yaml", MEASURE_JSON, "report.txt")
PAGE = "report.html"
PACKED_TRACE, PACKED_METRICS, PACKED_KERNELS = "trace.sqlite.xz", "metrics.sqlite.xz", "ncu.csv.xz"
UNTIL = "decode.step:8"  # prefill and a few steps say all that a figure shows
# The more samples, the more kernels are told apart by them; at 100 kHz a step of 10 ms takes 60 kB.
METRICS_UNTIL, METRICS_UNTIL_IF_SMALL = "decode.step:4", "decode.step:40"
METRICS_BYTES = 300_000


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.publish", description=__doc__)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    try:
        for folder in publish(arguments.outputs.resolve(), arguments.into):
            print(folder)
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except (OSError, sqlite3.Error, TraceError) as error:
        print(UserError(f"nothing was published: {error}").report(), file=sys.stderr)
        return ExitCode.STORAGE
    return ExitCode.OK


def publish(outputs: Path, into: Path) -> list[Path]:
    """Copy the newest finished run of each scope of `outputs` and return the new folders.

    Earlier runs of the same scopes in `into` are replaced, once all the new ones are there.
    """
    if not (outputs / NAME).exists():
        raise UserError(f"{outputs / NAME} does not exist", "the outputs folder of a sweep")
    store = Store(outputs)
    runs = [run["id"] for run in newest_per_scope(store.runs())]
    store.close()
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into, prefix=".new-") as new:
        for run in runs:
            _copy(outputs, run, Path(new) / run)
        for run in runs:
            scope = (into / run).parent
            shutil.rmtree(scope, ignore_errors=True)
            (Path(new) / run).parent.rename(scope)
    _write_page([Record.load(outputs / run) for run in runs], outputs, into)
    return [into / run for run in runs]


def _copy(outputs: Path, run: str, folder: Path) -> None:
    from analysis.trim import trim

    source = outputs / run
    shutil.copytree(source / "plots", folder / "plots", ignore=shutil.ignore_patterns("*.svg"))
    record = Record.load(source)
    pages = [PAGE] if (source / PAGE).exists() else []  # which older runs don't have
    for name in (*TEXTS, *pages):
        text = (source / name).read_text(encoding="utf-8")
        (folder / name).write_text(_without_paths(text, record, outputs), encoding="utf-8")
    if trace := record.capture["trace"]:
        trim(source / trace, folder / PACKED_TRACE, until=_until(source))
    if metrics := record.capture.get("metrics"):  # which older runs don't have, like the next
        _trim_metrics(source / metrics, folder / PACKED_METRICS)
    if kernels := record.capture.get("kernels"):
        # Around the table ncu says which processes it saw.
        lines = (source / kernels).read_text(errors="replace").splitlines(keepends=True)
        table = "".join(line for line in lines if line.startswith('"'))
        (folder / PACKED_KERNELS).write_bytes(lzma.compress(_without_paths(table, record, outputs).encode()))


def _until(run: Path) -> str:
    """The range after which a trace is cut: some decode steps, or the loop where the device repeats them."""
    phases = json.loads((run / MEASURE_JSON).read_text())["iterations"][0]["phases"]
    return UNTIL if DECODE_STEP in phases else f"{DECODE}:1"


def _trim_metrics(export: Path, out: Path) -> None:
    """The start of a recording with GPU metrics; a longer one where steps are short enough for that."""
    from analysis.trim import trim

    trim(export, out, until=METRICS_UNTIL)
    if out.stat().st_size < METRICS_BYTES / 2:
        longer = out.with_name(f"longer-{out.name}")
        trim(export, longer, until=METRICS_UNTIL_IF_SMALL)
        if longer.stat().st_size <= METRICS_BYTES:
            longer.replace(out)
        longer.unlink(missing_ok=True)


def _write_page(records: Sequence[Record], outputs: Path, into: Path) -> None:
    from analysis.html import render
    from harness import page, sweep

    text = render(page.of_sweep(records, sweep.labels(records), outputs, links=""))
    (into / PAGE).write_text(_without_paths(text, records[-1], outputs), encoding="utf-8")


def _without_paths(text: str, record: Record, outputs: Path) -> str:
    """A text of a run without what is private to the machine that made it."""
    # Longest first: the interpreter and the outputs may lie inside the project.
    names = {str(outputs): "outputs", sys.executable: "python", str(PROJECT): ".", f'"{record.host}"': '"-"'}
    if gpu := record.environment["gpu"]:
        names[str(gpu["uuid"])] = "-"
    for private in sorted(names, key=len, reverse=True):
        text = text.replace(private, names[private]).replace(html.escape(private), names[private])
    return text


if __name__ == "__main__":
    sys.exit(main())
