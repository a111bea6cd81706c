"""`python -m analysis compare A B …`: what changed between runs or traces, and where."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.commands import common
from analysis.commands.common import Exit
from analysis.errors import TraceError

_EPILOG = """\
A, B …   run folders (with run.json), folders of runs (the newest of each scope; folders of several scopes are
         compared scope by scope), or traces (.sqlite, .sqlite.xz). Each is compared with the first.

Latencies come from the unprofiled iterations, all else from the traces, per decode step (or iteration, or the
most frequent NVTX range), so traces of different length compare. What isn't known to hold the same work in
both is left out and named: iterations of a trace that was cut, steps that give other numbers of tokens.
Where traces say the opposite of the latencies, a warning names what the profiler cost each run.
Intervals are 95%, by bootstrap. The fields of --json: analysis/comparison/pairs.py

examples:
  python -m analysis compare results/h200/baseline results/h200/cuda_graphs
  python -m analysis compare before.sqlite after.sqlite --json
  python -m analysis compare results/h200 outputs             every scope that both have

exit codes: 0 compared · 2 wrong usage · 4 the runs did different work (--force compares them all the same)
            6 a run or trace can't be read
"""


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if len(arguments.subjects) < 2:
        parser.error("two runs or traces are needed at least")
    from analysis.comparison import pairs, subjects

    try:
        groups = subjects.groups(arguments.subjects)
        found = [one for group in groups for one in pairs.compare(group, force=arguments.force)]
    except subjects.NotComparable as error:
        return common.fail(error, error.hint, Exit.NOT_COMPARABLE)
    except TraceError as error:
        return common.fail_trace(error)
    if arguments.json:
        common.print_json({"comparisons": [one.as_json() for one in found]})
    else:
        from analysis.comparison import text

        common.print_tables(*(text.comparison(one) for one in found))
    return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = common.parser(
        "compare", "What changed between runs or traces, and where the time went.", _EPILOG
    )
    parser.add_argument(
        "subjects", type=Path, nargs="+", metavar="A B", help="runs, folders of runs, or traces"
    )
    parser.add_argument("--force", action="store_true", help="compare other models or audio, with a warning")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
