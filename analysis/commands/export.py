"""`python -m analysis export TRACE --perfetto`: a trace for other tools."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.commands import common, given
from analysis.commands.common import Exit
from analysis.commands.given import trace_of
from analysis.errors import TraceError
from analysis.reading.source import output_name

_EPILOG = """\
examples:
  python -m analysis export trace.sqlite --perfetto                  writes ./trace.pftrace
  python -m analysis export trace.sqlite.xz --perfetto --out a.pftrace
  python -m analysis export outputs/baseline/UTC --perfetto          writes ./baseline-UTC.pftrace

Open the file at https://ui.perfetto.dev: calls, ranges, kernels, and why the GPU was idle.
A trace with GPU metrics (metrics.sqlite.xz of a run) has them as counters too.

exit codes: 0 done · 2 wrong usage · 5 the file can't be written · 6 the trace can't be analysed
"""


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        path = trace_of(arguments.trace)
    except TraceError as error:
        return common.fail_trace(error)
    out = arguments.out or Path(f"{output_name(path)}.pftrace")
    from analysis import Trace, account, diagnose, perfetto
    from analysis.memory import aligned

    try:
        with Trace.open(path) as trace:
            diagnose.require_gpu_work(trace)
            acc = account(trace)
            common.say(perfetto.write(trace, acc, out, aligned(trace, acc)).resolve())
    except TraceError as error:
        return common.fail_trace(error)
    except OSError as error:
        return common.fail_storage(error, out, "--out with a file that you may write")
    return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = common.parser("export", "A trace for other tools.", _EPILOG)
    parser.add_argument("trace", type=Path, metavar="TRACE", help=given.TRACE)
    parser.add_argument("--perfetto", action="store_true", required=True, help="for ui.perfetto.dev")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: ./TRACE.pftrace, of a run ./SCOPE-UTC.pftrace"
    )
    return parser
