"""`python -m benchmarks.calibrate TRACE.sqlite TRUTH.csv`: the gap analysis against gaps that are known.

TRACE is a recording of benchmarks/calibration.cu, TRUTH what that program wrote meanwhile. A section passes
if each planted gap is in the trace, the time found under the planted cause is right, and almost none of the
planted time is under another. Exit codes: 0 all passed, 1 a section failed, 5 FILE can't be written, 6 TRACE
or TRUTH can't be read.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import TraceError
from harness.environment import PROJECT, git
from harness.errors import ExitCode
from harness.record import code_label

if TYPE_CHECKING:
    import pandas as pd

    from analysis import Account, Trace

DOMAIN = "calibration"
TRUTH_COLUMNS = ["section", "cause", "repetition", "work", "planted_ns"]
MAX_ERROR_NS = 2000
MAX_ERROR_SHARE = 0.02
MIN_FOUND_SHARE = 0.99
EXIT_FAILED = 1

_PAGE = """\
# Is the gap analysis right?

`make calibrate` records [a program](../benchmarks/calibration.cu) that plants idle time of known length and
cause, and compares what the analysis says with the program's own clocks. A section passes if all its gaps
are in the trace, the median error is at most {error_us:g} µs or {error_share:.0%} of the median gap, and at
least {found_share:.0%} of the planted idle time is found under its cause.

{table}

{origin}

Where the truth is a clock read inside the kernels (`dependency`, `dispatch`, `graph`), a planted gap contains
the edges of two kernels, which the profiler counts as work. `host_second_process` ran in another process.
"""


@dataclass(frozen=True)
class Calibration:
    """What was planted beside what was found.

    gaps: one row per planted gap: section, cause, repetition, work, planted_ns, idle_ns (how long the device
        was idle before the work that ends the gap), found_ns and profiler_ns (how much of that has the
        planted cause, and how much is the profiler's overhead). These are NA where the trace lacks the work.
    sections: one row per section, in the order of the truth: section, cause, planted (gaps), missing (of
        them), planted_ns, found_ns (sums), error_ns (median |found − planted|), error_share (of the median
        planted gap), found_share (of the planted idle time, how much is under its cause; NA without any),
        passed.
    """

    gaps: pd.DataFrame
    sections: pd.DataFrame

    @property
    def passed(self) -> bool:
        return bool(self.sections["passed"].all())


def read_truth(path: Path) -> pd.DataFrame:
    """The planted gaps: TRUTH_COLUMNS. TraceError if the file isn't the calibration program's."""
    import pandas as pd

    hint = "the file that the calibration program wrote while TRACE was recorded (make calibrate)"
    try:
        truth = pd.read_csv(path, dtype={"section": str, "cause": str})
        numbers = truth[TRUTH_COLUMNS[2:]].astype("int64")
    except OSError as error:
        raise TraceError(f"{path} can't be read: {error.strerror}", hint) from error
    except (ValueError, KeyError) as error:
        raise TraceError(f"{path} does not list planted gaps ({error})", hint) from error
    if truth.empty:
        raise TraceError(f"{path} lists no planted gaps", hint)
    if truth.duplicated(["section", "repetition", "work"]).any():
        raise TraceError(f"{path} lists a planted gap twice", hint)
    return truth[TRUTH_COLUMNS[:2]].join(numbers)


def compare(trace: Trace, acc: Account, truth: pd.DataFrame) -> Calibration:
    """Each planted gap beside what the analysis says of the gap before the same work."""
    import pandas as pd

    rows = planted_work(trace)
    gaps = truth.merge(rows, on=["section", "repetition", "work"], how="left", validate="one_to_one")
    found = _time_by_cause(acc)
    by_gap = found.groupby("row")["dur_ns"].sum()
    by_cause = found.set_index(["row", "cause"])["dur_ns"]
    wanted = pd.MultiIndex.from_arrays([gaps["row"].fillna(-1).astype("int64"), gaps["cause"]])
    gaps["idle_ns"] = by_gap.reindex(wanted.get_level_values(0), fill_value=0).to_numpy()
    gaps["found_ns"] = by_cause.reindex(wanted, fill_value=0).to_numpy()
    profiler = pd.MultiIndex.from_product([wanted.get_level_values(0), ["profiler"]])
    gaps["profiler_ns"] = by_cause.reindex(profiler, fill_value=0).to_numpy()
    measured = ["idle_ns", "found_ns", "profiler_ns"]
    gaps[measured] = gaps[measured].astype("Int64").mask(gaps["row"].isna())
    gaps = gaps.drop(columns="row")
    return Calibration(gaps, _sections(gaps))


def planted_work(trace: Trace) -> pd.DataFrame:
    """The work that was launched in a repetition's range: section, repetition, work (its place in the order
    in which they start), row (of trace.work). TraceError if there is none."""
    launch = ["process", "correlation"]
    work = trace.work[[*launch, "start_ns"]].astype("int64").rename(columns={"start_ns": "work_ns"})
    calls = trace.api[[*launch, "thread", "start_ns"]].astype("int64")
    calls = calls.sort_values("start_ns").drop_duplicates(launch)
    launched = work.rename_axis("row").reset_index().merge(calls, on=launch)

    ranges = trace.ranges[trace.ranges["domain"] == DOMAIN].astype({"name": str, "thread": "int64"})
    numbered = ranges["payload"].notna()
    span = ["thread", "start_ns", "end_ns"]
    sections = ranges[~numbered][[*span, "name"]].rename(columns={"name": "section"})
    repetitions = ranges[numbered][[*span, "payload"]].rename(columns={"payload": "repetition"})
    launched = _within(launched, _within(repetitions, sections)).sort_values(["work_ns", "row"])
    if launched.empty:
        raise TraceError(
            f"the trace has no work that was launched in a repetition's range (NVTX domain {DOMAIN})",
            "a recording of benchmarks/calibration.cu with --trace=cuda,nvtx",
        )
    launched["work"] = launched.groupby(["section", "repetition"]).cumcount()
    return launched[["section", "repetition", "work", "row"]].astype({"repetition": "int64"})


def _within(inner: pd.DataFrame, outer: pd.DataFrame) -> pd.DataFrame:
    """The rows of `inner` that begin in one of the `outer` ranges (which don't overlap) of their thread, with
    that range's columns."""
    import pandas as pd

    outer = outer.rename(columns={"end_ns": "until_ns"}).sort_values("start_ns")
    joined = pd.merge_asof(inner.sort_values("start_ns"), outer, on="start_ns", by="thread")
    return joined[joined["start_ns"] < joined["until_ns"]].drop(columns="until_ns")


def _time_by_cause(acc: Account) -> pd.DataFrame:
    """Idle time by the work that ended it: row (of trace.work), cause, dur_ns."""
    import numpy as np

    after = acc.gaps["after_row"].to_numpy()
    segments = acc.segments(np.flatnonzero(after >= 0))
    segments = segments.assign(row=after[segments["gap"].to_numpy()], cause=segments["cause"].astype(str))
    return segments.groupby(["row", "cause"], as_index=False)["dur_ns"].sum()


def _sections(gaps: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([_section(name, rows) for name, rows in gaps.groupby("section", sort=False)])


def _section(name: object, rows: pd.DataFrame) -> dict[str, object]:
    """One row of Calibration.sections."""
    seen = rows.dropna()
    missing = len(rows) - len(seen)
    error_ns = float((seen["found_ns"] - seen["planted_ns"]).abs().astype("float64").median())
    median_ns = float(rows["planted_ns"].median())
    found_share = _found_share(seen)
    right = error_ns <= max(MAX_ERROR_NS, MAX_ERROR_SHARE * median_ns) and found_share >= MIN_FOUND_SHARE
    return {
        "section": name,
        "cause": rows["cause"].iloc[0],
        "planted": len(rows),
        "missing": missing,
        "planted_ns": int(rows["planted_ns"].sum()),
        "found_ns": int(seen["found_ns"].sum()),
        "error_ns": error_ns,
        "error_share": error_ns / median_ns if median_ns else float("nan"),
        "found_share": found_share,
        "passed": bool(right and not missing),
    }


def _found_share(gaps: pd.DataFrame) -> float:
    """How much of the planted idle time is under its cause; NaN without any.

    Where the profiler saw work there is no idle time to find: by the program's own clock the interval between
    two kernels is longer, by their edges. Nor was the profiler's overhead planted, which the program can't
    tell from the call that it happened in.
    """
    to_find = gaps["planted_ns"].clip(upper=gaps["idle_ns"] - gaps["profiler_ns"])
    found = gaps["found_ns"].clip(upper=to_find)
    return float(found.sum() / to_find.sum()) if to_find.any() else float("nan")


def table(calibration: Calibration) -> str:
    """The sections as a Markdown table, with a row for all of them."""
    from harness.results import markdown

    header = ("section", "planted cause", "gaps", "planted, ms", "found, ms", "median error, µs", "of a gap")
    sections, gaps = calibration.sections, calibration.gaps.dropna()
    rows = [
        (
            row.section,
            row.cause,
            f"{row.planted}" + (f" ({row.missing} missing)" if row.missing else ""),
            f"{row.planted_ns / 1e6:.3f}",
            f"{row.found_ns / 1e6:.3f}",
            f"{row.error_ns / 1e3:.2f}",
            _percent(row.error_share),
            _percent(row.found_share),
            "passed" if row.passed else "FAILED",
        )
        for row in sections.itertuples()
    ]
    sums = (f"{sections[column].sum() / 1e6:.3f}" for column in ("planted_ns", "found_ns"))
    total = ("all", "", f"{sections['planted'].sum()}", *sums, "", "", _percent(_found_share(gaps)))
    passed = f"{sections['passed'].sum()} of {len(sections)}"
    return markdown((*header, "under its cause", "verdict"), [*rows, (*total, passed)])


def _percent(share: float) -> str:
    return "–" if share != share else f"{share:.1%}"


def calibrate(trace: Path, truth: Path) -> tuple[Calibration, str]:
    """Compare a recording with its truth; also the machine, nsys and date that it is from. TraceError."""
    from analysis import Trace, account

    planted = read_truth(truth)
    with Trace.open(trace) as opened:
        made = opened.info
        origin = (", ".join(gpu.name for gpu in made.gpus), made.product_version, made.recorded_utc[:10])
        return compare(opened, account(opened), planted), ", ".join(filter(None, origin))


def page(calibration: Calibration, origin: str) -> str:
    """The table as a document of its own, with what its columns mean."""
    code = git(PROJECT)
    return _PAGE.format(
        table=table(calibration),
        origin=f"{origin}, {code_label(code['commit'], code['dirty'])}",
        error_us=MAX_ERROR_NS / 1000,
        error_share=MAX_ERROR_SHARE,
        found_share=MIN_FOUND_SHARE,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("trace", type=Path, metavar="TRACE", help="nsys SQLite export (.sqlite, .xz, .gz)")
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="what was planted (.csv)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here, with its origin")
    arguments = parser.parse_args(argv)
    try:
        calibration, origin = calibrate(arguments.trace, arguments.truth)
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        return ExitCode.TRACE
    print(f"{table(calibration)}\n\n{origin}")
    if arguments.markdown:
        try:
            arguments.markdown.write_text(page(calibration, origin))
        except OSError as error:
            print(f"error: {arguments.markdown} can't be written: {error.strerror}", file=sys.stderr)
            return ExitCode.STORAGE
    return ExitCode.OK if calibration.passed else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
