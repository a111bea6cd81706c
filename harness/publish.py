"""`python -m harness.publish OUTPUTS --into FOLDER`: keep the newest finished runs to be committed.

FOLDER gets the same <scope>/<utc>/ as OUTPUTS, without what is large or names the recording machine's paths:
the record, the configuration, the raw latencies, the reports, the PNG plots, the first window of the trace,
the start of the recording with GPU metrics, what pages show of them, and what ncu measured.
FOLDER/report.html and ladder.png then show all that is published there side by side, earlier runs of other
scopes, too.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis import TraceError
from harness import details, private
from harness.details import DETAIL_JSON
from harness.errors import ExitCode, UserError
from harness.moved import MEMORY_JSON
from harness.phases import DECODE_STEP
from harness.plan import MEASURE_JSON
from harness.record import Record
from harness.results import newest_per_scope
from harness.store import NAME, Store, row_of

PAGE, LADDER = "report.html", "ladder.png"
TEXTS = ("run.json", "config.yaml", MEASURE_JSON, "report.txt")
SOME_HAVE = (PAGE, DETAIL_JSON, MEMORY_JSON)  # not older runs, nor those without a trace or GPU metrics
PACKED_TRACE, PACKED_METRICS, PACKED_KERNELS = "trace.sqlite.xz", "metrics.sqlite.xz", "ncu.csv.xz"
UNTIL = "iter:1"  # one whole window: its first steps alone are slower, until nsys has warmed up
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
        for left_out in show_all(arguments.into):
            print(f"left out of {PAGE} and {LADDER}: {left_out}", file=sys.stderr)
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except (OSError, sqlite3.Error, TraceError) as error:
        print(UserError(f"publishing failed: {error}").report(), file=sys.stderr)
        return ExitCode.STORAGE
    return ExitCode.OK


def publish(outputs: Path, into: Path) -> list[Path]:
    """Copy the newest finished run of each scope of `outputs` and return the new folders.

    Earlier runs of the same scopes in `into` are replaced, once all the new ones are there.
    """
    if not (outputs / NAME).exists():
        raise UserError(f"{outputs / NAME} does not exist", "the outputs folder of a sweep")
    there = into.resolve()
    if there.is_relative_to(outputs) or outputs.is_relative_to(there):  # what is replaced may be the source
        raise UserError(f"{there} and {outputs} are not two folders apart", "--into results/NAME")
    store = Store(outputs)
    runs = [run["id"] for run in newest_per_scope(store.runs())]
    store.close()
    if not runs:
        raise UserError(f"{outputs} has no finished run", "python -m harness.results list, which says why")
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into, prefix=".new-") as new:
        for run in runs:
            _copy(outputs, run, Path(new) / run)
        for run in runs:
            scope = (into / run).parent
            shutil.rmtree(scope, ignore_errors=True)
            (Path(new) / run).parent.rename(scope)
    return [into / run for run in runs]


def show_all(into: Path) -> list[str]:
    """Write page and ladder of the runs that are published in `into`, and their own pages by today's code;
    returns what is left out of page and ladder."""
    from analysis.html import write
    from harness import page, sweep

    records, left_out = _published(into)
    for record in records.values():
        detail = details.load(into / record.id, record.scope)
        if detail or not (
            record.capture["trace"] or record.capture["recorded"]
        ):  # older runs have no details
            write(into / record.id / PAGE, page.of_run(record, into, detail))
    runs = sorted(map(row_of, records.values()), key=lambda run: (run["started_utc"], run["id"]))
    shown = [records.pop(run["id"]) for run in newest_per_scope(runs)]  # as in the table of results
    write(into / PAGE, page.of_sweep(shown, sweep.labels(shown), into, links=""))
    _, svg = sweep.ladder(shown, into)
    svg.unlink()
    unlike = f"has not the inputs and the machine of {runs[-1]['id']}, or is not its scope's newest"
    return left_out + [f"{run} {unlike}" for run in sorted(records)]


def _published(into: Path) -> tuple[dict[str, Record], list[str]]:
    """The runs in `into` by id, and what is wrong with those that can't be read."""
    records, unreadable = {}, []
    for path in sorted(into.glob("*/*/run.json")):
        try:
            record = Record.load(path.parent)
            records[record.id] = record
        except UserError as error:
            unreadable.append(str(error))
    return records, unreadable


def _copy(outputs: Path, run: str, folder: Path) -> None:
    from analysis.trim import trim

    source = outputs / run
    shutil.copytree(source / "plots", folder / "plots", ignore=shutil.ignore_patterns("*.svg"))
    record = Record.load(source)
    names = private.names(record, outputs)
    for name in (*TEXTS, *(name for name in SOME_HAVE if (source / name).exists())):
        text = (source / name).read_text(encoding="utf-8")
        (folder / name).write_text(private.without(text, names), encoding="utf-8")
    if trace := record.capture["trace"]:
        trim(source / trace, folder / PACKED_TRACE, until=UNTIL)
    if metrics := record.capture.get("metrics"):  # which older runs don't have, like the next
        _trim_metrics(source / metrics, folder / PACKED_METRICS, _has_steps(source))
    if kernels := record.capture.get("kernels"):
        # Around the table ncu says which processes it saw.
        lines = (source / kernels).read_text(errors="replace").splitlines(keepends=True)
        table = "".join(line for line in lines if line.startswith('"'))
        (folder / PACKED_KERNELS).write_bytes(lzma.compress(private.without(table, names).encode()))


def _has_steps(run: Path) -> bool:
    """Whether the host took part in each decode step."""
    return DECODE_STEP in json.loads((run / MEASURE_JSON).read_text())["iterations"][0]["phases"]


def _trim_metrics(export: Path, out: Path, stepped: bool) -> None:
    """The start of a recording with GPU metrics; a longer one where steps are short enough for that."""
    from analysis.trim import trim

    trim(export, out, until=METRICS_UNTIL if stepped else UNTIL)
    if not stepped:
        return
    if out.stat().st_size < METRICS_BYTES / 2:
        longer = out.with_name(f"longer-{out.name}")
        trim(export, longer, until=METRICS_UNTIL_IF_SMALL)
        if longer.stat().st_size <= METRICS_BYTES:
            longer.replace(out)
        longer.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
