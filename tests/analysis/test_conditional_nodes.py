"""A loop inside one CUDA graph: a WHILE node that repeats a decode step 99 times, recorded on an H200."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import Account, Trace, account

ROUNDS, KERNELS_A_ROUND = (
    99,
    40,
)  # 3 in each of 12 layers, vocabulary, choice, acceptance and the loop's condition


def test_what_runs_in_a_loop_belongs_to_the_launch_of_its_graph(recorded: Callable[[str], Path]) -> None:
    with Trace.open(recorded("h200_while")) as trace:
        acc = account(trace)
        assert not trace.work["correlation"].gt(0).all(), "nsys gives no correlation ids in the loop"
        assert not any("no launch call" in warning for warning in acc.warnings)
        decode = acc.phases[(acc.phases["domain"] == "harness") & (acc.phases["name"] == "decode")].iloc[0]
        # The condition is looked at once more before the first round.
        assert decode["kernels"] == ROUNDS * KERNELS_A_ROUND + 1
        (span,) = trace.ranges[trace.ranges["name"] == "decode"].itertuples()
        calls = trace.api[trace.api["start_ns"].between(span.start_ns, span.end_ns)]
        launches = calls[calls["name"].astype(str).str.contains("Launch")]
        assert launches["name"].tolist() == ["cudaGraphLaunch"], "one for the whole window"


def test_within_a_round_the_kernels_overlap(recorded: Callable[[str], Path]) -> None:
    """Programmatic dependent launch: idle time lies between rounds only, where nsys delays the loop."""
    with Trace.open(recorded("h200_while")) as trace:
        gaps = account(trace).gaps
    before, after = gaps["before"].astype(str), gaps["after"].astype(str)
    between = after.str.contains("attention_block") & before.str.contains("set_condition")
    assert between.sum() == ROUNDS
    assert (gaps["cause"][between] == "graph").all() and (gaps["dur_ns"][between] > 10_000).all()
    within = before.str.contains("_block") & after.str.contains("_block|vocabulary")
    assert not within.any()


def test_gaps_that_the_profiler_made_around_a_loop_are_said(recorded: Callable[[str], Path]) -> None:
    with Trace.open(recorded("h200_while")) as trace:
        acc = account(trace)
    (paused,) = acc.warnings
    assert "--cuda-graph-trace=graph" in paused and "trace.graphs=graph" in paused


def test_a_graph_without_a_loop_is_not_doubted(graph: tuple[Trace, Account]) -> None:
    _, acc = graph
    assert not acc.warnings
