"""Metrics: from the trace, and from the timed iterations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from synthetic_export import Export

from analysis import Account, Trace, account
from analysis.headline import fastest, headline
from analysis.latency import latency_metrics, steps_ms
from analysis.metrics import metrics
from analysis.step_metrics import step_metrics
from analysis.units import percent, significant


def iteration(encode_ms: float, steps_ms: list[float], total_ms: float) -> dict[str, object]:
    steps = [int(ms * 1e6) for ms in steps_ms]
    phases = {"encode": [int(encode_ms * 1e6)], "decode": [sum(steps) + 2_000_000], "decode.step": steps}
    return {"iter_ns": int(total_ms * 1e6), "phases": phases}


def test_latency_metrics_are_medians_over_iterations() -> None:
    found = latency_metrics(
        [iteration(4, [6, 6], 20), iteration(5, [7, 7], 30), iteration(9, [8, 8], 25)], audio_s=10
    )
    assert found["encode_ms"] == 5 and found["total_ms"] == 25
    assert found["decode_ms"] == 16 and found["ms_per_token"] == 8  # the decode phase, not only its steps
    assert (found["total_ms.p25"], found["total_ms.p75"]) == (22.5, 27.5)
    assert found["tokens"] == 2
    assert found["real_time_factor"] == pytest.approx(0.0025)
    assert "features_ms" not in found  # was not timed: absent, not zero


def test_latency_without_decode_steps_has_no_tokens_to_divide_by() -> None:
    found = latency_metrics([{"iter_ns": 1_000_000, "phases": {"encode": [500_000]}}])
    assert found["total_ms"] == 1 and "ms_per_token" not in found


def test_a_token_is_what_decoding_gave_and_not_a_step() -> None:
    """Two windows at once by speculation: 20 tokens in 4 steps of 2 rows, one of which had ended before."""
    counts = {"tokens": 20, "rounds": 7, "drafted": 21, "accepted": 13}
    found = latency_metrics([iteration(1, [6.0] * 4, 40) | {"counts": counts}] * 2)
    assert found["tokens"] == 20 and found["ms_per_token"] == 26 / 20
    assert found["tokens_per_round"] == pytest.approx(20 / 7)
    assert found["acceptance"] == pytest.approx(13 / 21)
    assert "ms_per_token.p90" not in found, "steps are no tokens"


def test_a_step_behind_the_end_token_gives_no_token() -> None:
    found = latency_metrics([iteration(1, [6.0] * 4, 40) | {"counts": {"tokens": 3, "rounds": 3}}])
    assert found["ms_per_token"] == 26 / 3 and found["tokens_per_round"] == 1
    assert found["ms_per_token.p90"] == 6 and "acceptance" not in found


def test_a_loop_on_the_device_has_tokens_and_no_steps() -> None:
    timed = {"iter_ns": 9_000_000, "phases": {"decode": [6_000_000]}, "counts": {"tokens": 3, "rounds": 3}}
    found = latency_metrics([timed] * 2)
    assert found["ms_per_token"] == 2 and "ms_per_token.p90" not in found


def test_iterations_of_different_length_line_up_by_position() -> None:
    table = steps_ms([iteration(1, [1, 2, 3], 9), iteration(1, [4], 9)])
    assert table.shape == (2, 3)
    assert table[0].tolist() == [1, 2, 3] and table[1, 0] == 4


def test_the_tail_is_that_of_single_steps_not_of_iterations() -> None:
    steps = [1.0] * 98 + [51.0]
    found = latency_metrics([iteration(1, steps, 200), iteration(1, [1.0], 200)])
    assert found["ms_per_token.p90"] == 1
    assert found["ms_per_token.p99"] == pytest.approx(1.5)  # one of a hundred took 51 ms
    assert latency_metrics([]) == {}


@pytest.fixture
def two_steps(tmp_path: Path) -> Path:
    """In a window of 100 µs two steps of three kernels, 2 µs each, launched every 10 µs."""
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 100_000)
    for step in range(2):
        start = 10_000 + 40_000 * step
        export.range("decode.step", start, start + 35_000)
        for kernel in range(3):
            at, correlation = start + 10_000 * kernel, 3 * step + kernel
            export.call(at, at + 1_000, correlation)
            export.kernel(at + 2_000, at + 4_000, correlation)
    return export.write(tmp_path / "t.sqlite")


def test_trace_metrics(two_steps: Path) -> None:
    with Trace.open(two_steps) as trace:
        found = metrics(account(trace))
    assert found["kernels"] == found["decode.step.kernels"] == 6
    assert found["kernels_per_token"] == 3
    assert found["idle_share"] == pytest.approx(0.88)
    assert found["gap_median_us"] == 8
    assert found["gap_p90_us"] == pytest.approx(14), (
        "of 8, 8, 8, 8 and 18, and not of those at the window's ends"
    )
    assert found["decode.step.gap_p90_us"] == pytest.approx(15), "the first step's work ended one of 12, too"
    inner = 4 * 8_000 + 18_000
    assert found["launch_gap_share"] == 1  # no gap that the host is not to blame for
    assert found["idle_share_launch"] == pytest.approx(6 * 2_000 / 100_000)
    assert found["idle_share_host"] == pytest.approx(found["idle_share"] - found["idle_share_launch"])
    assert found["decode.step.idle_share"] == pytest.approx((inner + 12_000) / (inner + 12_000 + 12_000))


def test_the_headlines_shares_and_times_are_those_of_the_phase(two_steps: Path) -> None:
    """The steps' work ended gaps of 62 µs, 12 of them launches, and took 12: 74 µs in two steps."""
    with Trace.open(two_steps) as trace:
        assert headline(account(trace)) == (
            "The GPU idles 84% of the decode steps: 81% of that is host code between CUDA calls; a decode "
            "step takes 3 kernels and 0.037 ms while traced"
        )


def test_an_interval_lies_around_the_metric_that_it_is_of(tmp_path: Path) -> None:
    """A kernel launched between two steps counts for the interval's repetition, and for no step's kernels."""
    export = Export()
    export.domain("harness")
    export.range("decode", 0, 800)
    for step in range(8):
        export.range("decode.step", 100 * step, 100 * step + 50)
        for kernel, at in enumerate((100 * step, 100 * step + 60)):
            export.call(at, at + 5, 2 * step + kernel)
            export.kernel(at + 10, at + 20, 2 * step + kernel)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        acc = account(trace)
        found = metrics(acc)
        limits = step_metrics(trace, acc, found)
    assert found["kernels_per_token"] == 1
    assert limits["kernels_per_token.low"] == limits["kernels_per_token.high"] == 1


def test_a_trace_without_gpu_work_gives_no_gpu_metrics(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 1000)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        assert metrics(account(trace)) == {}


def test_the_headline_says_what_dominates(eager: tuple[Trace, Account], graph: tuple[Trace, Account]) -> None:
    said = headline(eager[1])
    assert re.fullmatch(
        r"The GPU idles 92% of the decode steps: \d\d% of that is host code between CUDA calls; "
        r"a decode step takes [\d,]+ kernels and [\d.]+ ms while traced",
        said,
    )
    step = eager[1].phase("decode.step")
    assert step is not None and f" {step['kernels'] / step['count']:,.0f} kernels " in said
    assert headline(eager[1], ms_per_token=6.84).endswith(" kernels, a token 6.84 ms")
    assert headline(graph[1]).startswith("The GPU idles 15% of the decode steps: ")
    assert "; a decode step takes 16 kernels and " in headline(graph[1])


def test_the_headline_does_not_take_a_whole_graph_for_one_without_gaps(loop: tuple[Trace, Account]) -> None:
    assert re.fullmatch(
        r"The GPU idles <?0\.\d% of the decode phase, not counting gaps inside its CUDA graphs, which were "
        r"traced as one piece each; a token takes 0\.20 ms",
        headline(loop[1], ms_per_token=0.2006),
    )


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0%"), (0.0001, "<0.1%"), (0.0042, "0.4%"), (0.0199, "2.0%"), (0.127, "13%"), (1, "100%")],
)
def test_a_small_share_is_not_rounded_to_nothing(share: float, said: str) -> None:
    assert percent(share) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0.00"), (0.00419, "0.0042"), (0.037, "0.037"), (0.0996, "0.100"), (0.934, "0.93"), (6.914, "6.91"),
     (746.2, "746"), (12294.3, "12,294")],
)  # fmt: skip
def test_a_small_time_is_not_rounded_to_nothing(value: float, said: str) -> None:
    assert significant(value) == said


def test_the_fastest_is_named_with_its_distance_from_the_first() -> None:
    assert fastest({"baseline": 7.0, "flash": 6.0, "graphs": 1.0}) == (
        "graphs: 1.00 ms per token, 7.0× faster than baseline (7.00 ms)"
    )
    assert fastest({"baseline": 1.0, "flash": 6.0}) == "baseline is the fastest: 1.00 ms per token"
    assert fastest({"baseline": 7.0, "flash": 5.0}, {"baseline": (2, 12), "flash": (1, 9)}) == (
        "flash: 5.00 ms per token against 7.00 of baseline, a difference within the noise"
    )
    noise = dict.fromkeys(("baseline", "graphs", "flash"), (1, 12))
    assert fastest({"baseline": 7.0, "graphs": 6.0, "flash": 5.0}, noise).startswith("flash: 5.00 ms")
    limits = {"baseline": (6.9, 7.1), "flash": (1, 9), "graphs": (5.9, 6.1)}
    assert fastest({"baseline": 7.0, "flash": 5.0, "graphs": 6.0}, limits).startswith("graphs: 6.00 ms"), (
        "what is only nominally faster is not the finding"
    )
    assert "1.2× faster" in fastest({"baseline": 6.0, "flash": 5.0}, {"flash": (4, 7)}), "one is unknown"
    assert fastest({}) == "No scopes to compare"
