"""`python -m analysis check RUN --baseline RUN --max METRIC=LIMIT …`: a gate for continuous integration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands import common
from analysis.commands.common import Exit
from analysis.errors import TraceError

# numpy and scipy take a second to import: not before the arguments are known to be good.
if TYPE_CHECKING:
    from analysis.comparison.limits import Limit

_EPILOG = """\
METRIC   any number of run.json (decode.idle_share, kernels_per_token, wer …), or `latency`: ms_per_token
         where both runs have it, total_ms otherwise
LIMIT    +5%   at most 5% more than the baseline    +2pt  at most 0.02 more, for shares
         +3.5  at most 3.5 more, in the metric's unit

A change counts with its 95% interval (bootstrap over iterations): it is a regression if all of that lies
above the limit, and too noisy to tell if only the measured value does, or if a regression of three times the
limit would have gone unnoticed. Where a run has no iterations (measure.json), what run.json recorded is held
against the limit and a warning says so; a latency without interval there is too noisy at worst. Numbers
without repetitions (kernels, word errors) are compared as they are.
The intervals know the noise within a process, not that from process to process: leave the limits room for it.

examples:
  python -m analysis check outputs/cuda_graphs --baseline results/h200/cuda_graphs --max latency=+5%
  python -m analysis check NEW --baseline OLD --max latency=+5% --max decode.idle_share=+2pt --json

exit codes: 0 within the limits · 1 regression · 2 wrong usage, unknown metric · 3 too noisy to tell
            4 the runs did different work, one did not finish, a newer one beside it did not, or a limited
              metric means another thing in their traces (--force compares them all the same)
            5 the output can't be written · 6 a run can't be read, or a limited number is NaN or no time
            70 an error of this program, with its traceback: never 1
"""


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    from analysis.comparison import limits, numbers, subjects

    try:
        baseline, run = subjects.recorded_runs(arguments.baseline, arguments.run)
        subjects.check_finished(baseline, run, force=arguments.force)
        warnings = subjects.check(baseline, run, force=arguments.force)
        outcomes = [limits.hold(limit, baseline, run) for limit in arguments.max]
        changes = [outcome.change for outcome in outcomes]
        traced = [one.metric for one in changes if one.is_traced]
        warnings += subjects.check_traces(baseline, run, traced, force=arguments.force)
        warnings += numbers.recorded(baseline, run, changes)
    except subjects.NotComparable as error:
        return common.fail(error, error.hint, Exit.NOT_COMPARABLE)
    except TraceError as error:
        return common.fail_trace(error)
    except limits.UnknownMetric as error:
        return common.fail(error, error.hint, Exit.USAGE)
    worst = limits.worst(outcomes)
    code = {limits.REGRESSION: Exit.REGRESSION, limits.NOISY: Exit.NOISY, limits.FINE: Exit.OK}[worst]
    if arguments.json:
        document = {"verdict": worst, "exit_code": int(code), "warnings": warnings}
        document |= {"baseline": str(baseline.path), "run": str(run.path)}
        common.print_json(document | {"outcomes": [outcome.as_json() for outcome in outcomes]})
    else:
        from analysis.comparison import text

        about = [text.judged(baseline, run), *map(text.warning, warnings)]
        common.print_tables(*about, text.outcomes(outcomes))
    return code


def _limit(text: str) -> Limit:
    from analysis.comparison import limits

    try:
        return limits.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = common.parser("check", "Whether a run is worse than its baseline by more than limits.", _EPILOG)
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="a run folder, or a scope's: its newest finished run",
    )
    parser.add_argument("--baseline", type=Path, metavar="RUN", required=True, help="what it is held against")
    parser.add_argument(
        "--max",
        type=_limit,
        action="append",
        required=True,
        metavar="METRIC=LIMIT",
        help="how much a metric may rise; repeatable",
    )
    parser.add_argument("--force", action="store_true", help="check runs that don't compare as well")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
