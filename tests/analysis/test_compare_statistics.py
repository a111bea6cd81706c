"""Bootstrap intervals: they cover, they are reproducible, and they know when they know too little."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import statistics
from analysis.comparison.numbers import Change
from analysis.comparison.text import interval
from analysis.latency import latency_metrics
from analysis.statistics import (
    MIN_SAMPLES,
    Estimate,
    Sample,
    change,
    change_of_estimates,
    estimate,
    median_of,
    metric_spread,
    ratio_of,
)


def times_ms(rng: np.random.Generator, n: int, spread: float = 0.05) -> np.ndarray:
    """Skewed, as times are; the median of the distribution is 7."""
    return 7 * np.exp(rng.normal(0, spread, n))


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    found = [estimate(median_of(times_ms(rng, 20))) for _ in range(300)]
    covered = np.mean([one.low <= 7 <= one.high for one in found if one.low and one.high])
    assert 0.90 <= covered <= 0.99


def test_the_interval_of_a_change_covers_the_true_one() -> None:
    rng = np.random.default_rng(4)
    pairs = [(median_of(times_ms(rng, 20)), median_of(1.3 * times_ms(rng, 15))) for _ in range(200)]
    found = [change(a, b, relative=True) for a, b in pairs]
    covered = np.mean([one.low <= 0.3 <= one.high for one in found if one.low and one.high])
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize("counts", [(20,), (150,), (20, 15)])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_intervals_are_scipys(counts: tuple[int, ...], weighted: bool) -> None:
    rng = np.random.default_rng(10)
    times = [np.round(1e6 * times_ms(rng, n)) for n in counts]
    samples = [ratio_of(one, rng.integers(1, 9, len(one))) if weighted else median_of(one) for one in times]

    def at(sample: Sample, rows: np.ndarray) -> np.ndarray:
        if sample.weights is None:
            return np.median(sample.values[rows], axis=-1)
        return sample.values[rows].sum(axis=-1) / sample.weights[rows].sum(axis=-1)

    def statistic(*rows: np.ndarray, axis: int) -> np.ndarray:
        known = [at(sample, row) for sample, row in zip(samples, rows, strict=True)]
        return known[0] if len(known) == 1 else known[1] / known[0] - 1

    theirs = stats.bootstrap(
        [np.arange(n) for n in counts],
        statistic,
        n_resamples=2000,
        vectorized=True,
        rng=statistics.generator(),
    ).confidence_interval
    ours = estimate(*samples) if len(samples) == 1 else change(*samples, relative=True)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_the_same_data_give_the_same_interval_in_any_order_of_asking() -> None:
    rng = np.random.default_rng(5)
    one, other = (ratio_of(times_ms(rng, 20), np.ones(20)) for _ in range(2))
    first = estimate(one)
    estimate(other)
    assert estimate(one) == first
    assert estimate(one, np.random.default_rng(1)) != first  # a generator of the caller's own is used


def test_repetitions_that_are_all_alike_have_an_interval_without_width() -> None:
    assert estimate(median_of([4.0] * 8)) == Estimate(4.0, 4.0, 4.0, 8)
    same = ratio_of([30.0] * 8, [10.0] * 8)
    assert estimate(same) == Estimate(3.0, 3.0, 3.0, 8)
    assert change(same, same, relative=False) == Estimate(0.0, 0.0, 0.0, 8)


@pytest.mark.parametrize("n", [0, 1, MIN_SAMPLES - 1, MIN_SAMPLES])
def test_too_few_repetitions_have_no_interval(n: int) -> None:
    found = estimate(median_of(np.arange(1.0, n + 1)))
    assert (found.low is None) == (found.high is None) == (n < MIN_SAMPLES)
    assert found.n == n and found.unstable == (n == MIN_SAMPLES)


def test_unstable_is_a_median_known_to_no_better_than_two_per_cent() -> None:
    assert Estimate(100.0, 97.9, 102.1, 20).unstable and not Estimate(100.0, 98.1, 101.9, 20).unstable
    assert not Estimate(0.0, 0.0, 0.0, 20).unstable and not Estimate(100.0, None, None, 3).unstable
    metrics = {"total_ms": 10.0, "total_ms.low": 9.0, "total_ms.high": 11.0, "encode_ms": 3.0}
    assert metric_spread(metrics, "total_ms") == pytest.approx(0.1)
    assert metric_spread(metrics, "encode_ms") is None


def test_pairs_share_a_drift_that_then_cancels() -> None:
    rng = np.random.default_rng(6)
    drift = np.linspace(0, 3, 20)
    a, b = (median_of(7 + drift + rng.normal(0, 0.02, 20)) for _ in range(2))
    paired, apart = (change(a, b, relative=False, paired=paired) for paired in (True, False))
    assert paired.value == apart.value
    assert width(paired) < 0.2 * width(apart)


def test_neighbouring_steps_that_resemble_each_other_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1, 4000)
    steps = np.convolve(noise, np.ones(40) / 40, mode="same") + 10
    in_order, shuffled = (ratio_of(values, np.ones(4000)) for values in (steps, rng.permutation(steps)))
    assert estimate(in_order).value == pytest.approx(steps.mean())
    assert width(estimate(in_order)) > 3 * width(estimate(shuffled))


def test_estimates_alone_give_nearly_the_interval_of_their_samples() -> None:
    rng = np.random.default_rng(8)
    a, b = (ratio_of(times_ms(rng, 40), np.ones(40)) for _ in range(2))
    b = Sample(b.values * 2, b.weights)
    for relative in (False, True):
        direct = change(a, b, relative=relative, paired=False)
        indirect = change_of_estimates(estimate(a), estimate(b), relative=relative)
        assert indirect.value == pytest.approx(direct.value)
        assert width(indirect) == pytest.approx(width(direct), rel=0.15)
    assert change_of_estimates(estimate(a), Estimate(3.0, None, None, 1), relative=True).low is None


def test_latencies_have_intervals_from_six_iterations_on() -> None:
    rng = np.random.default_rng(9)
    iterations = [
        {"iter_ns": int(ms * 3e6), "phases": {"decode": [int(ms * 2e6)], "decode.step": [int(ms * 1e6)] * 2}}
        for ms in times_ms(rng, 20)
    ]
    found = latency_metrics(iterations)
    for name in ("total_ms", "decode_ms", "ms_per_token"):
        assert found[f"{name}.low"] < found[name] < found[f"{name}.high"]
        assert found[f"{name}.low"] > found[f"{name}.p25"] and found[f"{name}.high"] < found[f"{name}.p75"]
    assert not [name for name in latency_metrics(iterations[:5]) if name.endswith((".low", ".high"))]


def width(found: Estimate) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low


@pytest.mark.parametrize(
    ("metric", "between"), [("ms_per_token", "-0.2 to +0.1"), ("idle_share", "-20.00 pt to +10.00 pt")]
)
def test_an_interval_is_shown_from_its_lower_end_on(metric: str, between: str) -> None:
    change = Estimate(-0.05, -0.2, 0.1, 8)
    assert interval(Change(metric, change, change, change, change, "iterations")) == between
