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
    from analysis.comparison.limits import Limit, Side

_EPILOG = """\
METRIC   any number of run.json (decode.idle_share, kernels_per_token, wer …), or `latency`: ms_per_token and
         total_ms, of which the worse counts (those that the runs have; if just one has it, name one metric)
LIMIT    +5%   at most 5% more than the baseline    +2pt  at most 0.02 more, for shares only
         +3.5  at most 3.5 more, in the metric's unit (ms, µs …): the table shows it
         --min turns this round for what is better when larger (token_agreement, acceptance, speedup,
         tokens_per_round): -1pt, -5% or -0.5 at most less. Without sign, how much worse it may get.

A change counts with its 95% interval (bootstrap over iterations): it is a regression if all of that lies
beyond the limit, and too noisy to tell if only the measured value does, or if a regression of three times the
limit would have gone unnoticed. Where a run has no iterations (measure.json), what run.json recorded is held
against the limit and a warning says so; a latency without interval (ms_per_token.p99, or one of fewer than 6
iterations) is too noisy at worst. Other numbers without one (kernels, word errors) are compared as they are.
The intervals know the noise within a process, not that from process to process: leave the limits room for it.

examples:
  python -m analysis check outputs/cuda_graphs --baseline results/h200/cuda_graphs --max latency=+5%
  python -m analysis check NEW --baseline OLD --max latency=+5% --max decode.idle_share=+2pt --json
  python -m analysis check NEW --baseline OLD --max latency=+5% --min token_agreement=-1pt

exit codes: 0 within the limits · 1 regression · 2 wrong usage, unusable limit · 3 too noisy to tell
            4 the runs did different work, one did not finish, a newer one beside it did not, or a limited
              metric means another thing in their traces (--force compares them all the same)
            5 the output can't be written · 6 a run can't be read, or a limited number is NaN or no time
            70 an error of this program, with its traceback: never 1
"""


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.limits:
        parser.error("at least one --max METRIC=LIMIT or --min METRIC=LIMIT is needed")
    from analysis.comparison import limits, numbers, subjects

    try:
        baseline, run = subjects.recorded_runs(arguments.baseline, arguments.run)
        subjects.check_finished(baseline, run, force=arguments.force)
        warnings = subjects.check(baseline, run, force=arguments.force)
        if run.path.resolve() == baseline.path.resolve():
            warnings.append(f"{run.path} is held against itself, so nothing can have changed")
        outcomes = [one for limit in arguments.limits for one in limits.hold(limit, baseline, run)]
        changes = [outcome.change for outcome in outcomes]
        traced = [one.metric for one in changes if one.is_traced]
        warnings += subjects.check_traces(baseline, run, traced, force=arguments.force)
        warnings += numbers.recorded(baseline, run, changes)
    except subjects.NotComparable as error:
        return common.fail(error, error.hint, Exit.NOT_COMPARABLE)
    except TraceError as error:
        return common.fail_trace(error)
    except limits.WrongLimit as error:
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


def _most(text: str) -> Limit:
    from analysis.comparison.limits import Side

    return _limit(text, Side.MAX)


def _least(text: str) -> Limit:
    from analysis.comparison.limits import Side

    return _limit(text, Side.MIN)


def _limit(text: str, side: Side) -> Limit:
    from analysis.comparison import limits

    try:
        return limits.parse(text, side)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = common.parser("check", "Whether a run is worse than its baseline by more than limits.", _EPILOG)
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder, or a scope's: its newest finished run"
    )
    parser.add_argument("--baseline", type=Path, metavar="RUN", required=True, help="what it is held against")
    for option, kind, what in (
        ("--max", _most, "how much a metric may rise; repeatable"),
        ("--min", _least, "how much one may fall of which more is better; repeatable"),
    ):
        parser.add_argument(
            option, type=kind, action="append", dest="limits", metavar="METRIC=LIMIT", help=what
        )
    parser.add_argument("--force", action="store_true", help="check runs that don't compare as well")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
