"""`python -m harness.results list|table|rebuild`: what past runs found."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from analysis.units import counted
from harness.errors import ExitCode, UserError
from harness.metrics import AGREEMENT, ERROR_RATES
from harness.plan import MEASURE_JSON
from harness.record import Record, code_label, days
from harness.report import screen
from harness.store import NAME, Store, results_left
from harness.verdict import outcome, shown

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
WORDS, VERDICT = "WER (CER)", "hypothesis"
HEADER = (
    "scope",
    "ms per token (p25–p75)",
    "encoder, ms (p25–p75)",
    "idle",
    "idle in decode",
    "median gap in decode, µs",
    "kernels per token",
    "profiler's cost",
    WORDS,
    "tokens",
    VERDICT,
)
OPTIONAL = (WORDS, VERDICT)  # left out where no run has one: random weights give no words
ABSENT = "–"
ALL = 1000  # columns of a table that goes to no terminal, where no number may be cut


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except (OSError, sqlite3.Error) as error:
        print(UserError(str(error)).report(), file=sys.stderr)
        return ExitCode.STORAGE


def list_runs(arguments: argparse.Namespace) -> int:
    """All runs, oldest first."""
    rows = []
    store = _open(arguments.db)
    for run in store.runs():
        code = code_label(run["commit"], run["dirty"])
        words = _words(store.metrics(run["id"]))
        rows.append([run["id"], run["status"], run["model"], run["device"], code, words, run["error"] or ""])
    store.close()
    header, rows = without_empty(("run", "status", "model", "device", "code", WORDS, "error"), rows)
    table = Table(box=SIMPLE)
    for name, *cells in zip(header, *rows, strict=True):  # ids are there to be copied; errors are in run.json
        whole = None if name == "error" else max(map(len, cells), default=0)
        table.add_column(name, min_width=whole, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    screen().print(table)
    return ExitCode.OK


def scopes_table(arguments: argparse.Namespace) -> int:
    """The newest finished run of each scope, of one machine and model."""
    store = _open(arguments.db)
    every = store.runs()
    runs = newest_per_scope(every)
    if not runs:
        raise UserError(f"{arguments.db} has no finished run", "python -m harness +scope=baseline")
    rows = [table_row(run, store.metrics(run["id"])) for run in runs]
    store.close()
    header, rows = without_empty(HEADER, rows)
    made = "; ".join(filter(None, (origin(runs), repetitions(arguments.db.parent, runs))))
    if arguments.update:
        replace_between_marks(arguments.update, f"{markdown(header, rows)}\n\n{made}")
    elif arguments.markdown:
        print(f"{markdown(header, rows)}\n\n{made}")
    else:
        table = Table(*header, box=SIMPLE, caption=made, caption_justify="left")
        for row in rows:
            table.add_row(*row)
        screen(ALL).print(table)
    if others := left_out(every, runs[0]):
        is_document = arguments.update or arguments.markdown
        print(others, file=sys.stderr if is_document else sys.stdout)
    return ExitCode.OK


def rebuild(arguments: argparse.Namespace) -> int:
    """Make results.db anew from the run folders beside it, or from the given ones."""
    outputs = arguments.db.parent
    if not outputs.is_dir():
        raise UserError(f"there is no folder {outputs}", f"--db FOLDER/{NAME}, with the folder of the runs")
    folders = [f.resolve() for f in arguments.folders] or [
        p.parent for p in sorted(outputs.glob("*/*/run.json"))
    ]
    if stray := [f for f in folders if f.parent.parent != outputs.resolve() and f.parent.parent != outputs]:
        raise UserError(f"{stray[0]} is not a run folder of {outputs} (<outputs>/<scope>/<utc>)")
    records = []
    for folder in folders:
        try:
            records.append(Record.load(folder))
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
    if not arguments.folders:
        arguments.db.unlink(missing_ok=True)
    store = Store(outputs)
    for record in records:
        store.put(record)
    store.close()
    print(f"{arguments.db}: {len(records)} runs")
    return ExitCode.OK


def newest_per_scope(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest finished run of each scope among those that share machine and inputs (model, audio, device,
    number of tokens) with the newest of all: those that are compared with no other, then the others, in the
    order in which they were made."""
    finished = [run for run in runs if run["status"] == "finished"]
    alike = [run for run in finished if _alike(run, finished[-1])]
    newest = {run["scope"]: run for run in alike}
    return sorted(newest.values(), key=lambda run: (run["tokens_match"] is not None, run["started_utc"]))


def left_out(runs: Sequence[dict[str, Any]], shown: dict[str, Any]) -> str:
    """How many finished runs are not alike to one that is `shown`; empty if none."""
    others = [run for run in runs if run["status"] == "finished" and not _alike(run, shown)]
    if not others:
        return ""
    models = ", ".join(sorted({run["model"] for run in others}))
    count = "1 run" if len(others) == 1 else f"{len(others)} runs"
    return f"not shown: {count} with other inputs or of another machine (models: {models})"


def _alike(run: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(run[key] == other[key] for key in ("machine", "inputs"))


def table_row(run: dict[str, Any], metrics: dict[str, float]) -> list[str]:
    """One row of the table; a dash where the run has no such number (no trace, no GPU)."""
    from analysis.statistics import unstable_remark

    def cell(name: str, form: Callable[[float], str]) -> str:
        return form(metrics[name]) if name in metrics else ABSENT

    def spread(name: str, digits: int) -> str:
        if name not in metrics:
            return ABSENT
        remark = unstable_remark(metrics, name)
        median, low, high = (f"{metrics[name + end]:.{digits}f}" for end in ("", ".p25", ".p75"))
        return f"{median} ({low}–{high})" + (f", {remark}" if remark else "")

    return [
        run["scope"],
        spread("ms_per_token", 3),
        spread("encode_ms", 2),
        cell("idle_share", "{:.1%}".format),
        cell("decode.idle_share", "{:.1%}".format),
        cell("decode.gap_median_us", "{:.1f}".format),
        cell("kernels_per_token", "{:.0f}".format),
        cell("profiling_overhead", lambda share: f"{round(share, 2) + 0.0:+.0%}"),  # no -0%
        _words(metrics),
        tokens_in_words(json.loads(run["tokens_match"] or "null")),
        outcome(json.loads(run["verdict"] or "[]")) or ABSENT,
    ]


def _words(metrics: dict[str, float]) -> str:
    """Word and character error rate."""
    if not metrics.keys() >= set(ERROR_RATES):
        return ABSENT
    wer, cer = (shown(name, metrics[name]) for name in ERROR_RATES)
    return f"{wer} ({cer})"


def without_empty(
    header: Sequence[str], rows: Sequence[list[str]]
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows without the optional columns in which no row has a value."""
    kept = [
        n for n, name in enumerate(header) if name not in OPTIONAL or any(row[n] != ABSENT for row in rows)
    ]
    return tuple(header[n] for n in kept), [[row[n] for n in kept] for row in rows]


def tokens_in_words(match: dict[str, Any] | None) -> str:
    """Whether the tokens are those of the scope compared with, in a few words."""
    if match is None:
        return "reference"
    if match["identical"] is None:
        return "not compared"
    if match["identical"]:
        return "identical"
    if (difference := match["first_difference"]) is None:
        return "differ"
    # One transcript may go on where the other ends: no choice was made there.
    margin = "unknown" if difference["margin"] is None else f"{difference['margin']:.2g}"
    place = f"differ from position {difference['position']} (logit margin {margin})"
    if "agreement" not in match:  # a run made before it was counted
        return place
    return f"{place}; {shown(AGREEMENT, match['agreement'])} equal"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as Markdown."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 2) + ["---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def origin(runs: Sequence[dict[str, Any]]) -> str:
    """Where the numbers come from: machine, model, date and commit, and by what words were compared."""
    commits = sorted({code_label(run["commit"], run["dirty"]) for run in runs})
    when = days(run["started_utc"] for run in runs)
    made = f"{runs[-1]['machine']}, {runs[-1]['model']}, {when}, {', '.join(commits)}"
    found = [json.loads(run["word_errors"] or "null") or {"wer": None} for run in runs]
    by = sorted({f"{f['library']}, {f['normalizer']}" for f in found if f["wer"] is not None})
    return f"{made}; word errors: {', '.join(by)}" if by else made


def repetitions(outputs: Path, runs: Sequence[dict[str, Any]]) -> str:
    """Of how many iterations the latencies are medians, from the runs' folders; empty if these are gone."""
    measured = (results_left(outputs / run["id"] / MEASURE_JSON) for run in runs)
    counts = {(len(one["iterations"]), one["warmup"]) for one in measured if "warmup" in one}
    each = [f"{counted(timed, 'iteration')} after {warmup} of warm-up" for timed, warmup in sorted(counts)]
    return f"medians of {' or '.join(each)}" if each else ""


def replace_between_marks(file: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the two marks; UserError if the file has none."""
    before, found, rest = file.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{file} has no place for the table", f"add the lines {begin} and {end}")
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _open(db: Path) -> Store:
    if not db.exists():
        if any(db.parent.glob("*/*/run.json")):
            hint = f"python -m harness.results rebuild --db {db} makes it from the runs there"
        else:
            hint = "python -m harness +scope=baseline makes a first run"
        raise UserError(f"{db} does not exist", hint)
    return Store(db.parent)


def _database(text: str) -> Path:
    path = Path(text)
    if path.name != NAME:
        raise argparse.ArgumentTypeError(f"a database of the harness is named {NAME}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.results", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--db", type=_database, default=Path("outputs") / NAME, help="default: outputs/results.db"
    )
    commands = parser.add_subparsers(required=True)
    listing = commands.add_parser("list", parents=[common], help="all runs")
    listing.set_defaults(command=list_runs)
    table = commands.add_parser("table", parents=[common], help="the newest finished run of each scope")
    table.add_argument("--markdown", action="store_true", help="print Markdown")
    table.add_argument("--update", type=Path, metavar="FILE", help=f"write it between {BEGIN} and {END}")
    table.set_defaults(command=scopes_table)
    again = commands.add_parser("rebuild", parents=[common], help="make the database from the run folders")
    again.add_argument("folders", nargs="*", type=Path, help="only these run folders")
    again.set_defaults(command=rebuild)
    return parser


if __name__ == "__main__":
    sys.exit(main())
