"""How well a number is known: bootstrap confidence intervals over iterations, or over the steps of a trace.

What is resampled are the repetitions within one process. What differs from process to process (where memory
lies, which core the host runs on) is not in the intervals: to see that, run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
MIN_SAMPLES = 6  # the range of six covers their median with 1 − 2·0.5⁶ = 97%, that of five with 94%
TOO_FEW = f"fewer than {MIN_SAMPLES} iterations: too few to tell how sure"  # where there is no interval
UNSTABLE_ABOVE = 0.02
SEED = 0
_RESAMPLES = 2000
_BLOCKS = 200
_BCA_BELOW = 1000  # beyond, the jackknife costs more than the correction changes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def generator() -> np.random.Generator:
    """A generator of its own for each number, so that none depends on which others were asked for."""
    return np.random.default_rng(SEED)


@dataclass(frozen=True)
class Draws:
    """Resamples of `n` repetitions: `rows` [resamples, drawn] are the numbers of the repetitions drawn."""

    rows: Ints
    n: int

    @cached_property
    def times(self) -> Floats:
        """How often each resample has each repetition: shape [resamples, n]."""
        cell = self.rows + np.arange(len(self.rows))[:, None] * self.n
        counts = np.bincount(cell.ravel(), minlength=len(self.rows) * self.n)
        return counts.reshape(-1, self.n).astype(np.float64)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; `low` and `high` are None where `n` repetitions are too few for one."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def spread(self) -> float | None:
        """Half of the interval's width, as a share of the value; None without interval, or at value 0."""
        return relative_spread(self.value, self.low, self.high)

    @property
    def unstable(self) -> bool:
        """Whether the number is known to no better than 2%."""
        return self.spread is not None and self.spread > UNSTABLE_ABOVE


@dataclass(frozen=True)
class Sample:
    """Repetitions of one measurement, and the number that stands for them all.

    values: shape [n]. Without weights that number is their median, which outliers leave alone; with weights
    (shape [n]: steps, or ns) it is sum(values) / sum(weights), so that parts add up to their whole.
    """

    values: Floats
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def value(self) -> float:
        return float(self.at(_everything(len(self)))[0]) if len(self) else float("nan")

    def at(self, draws: Draws) -> Floats:
        """The number for each resample: shape [resamples]."""
        if self.weights is None:
            return np.asarray(np.median(self.values[draws.rows], axis=-1))
        # Of integers, like nanoseconds, the sums are exact.
        values, weights = (draws.times @ np.stack([self.values, self.weights], axis=1)).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(values / weights)

    def blocks(self) -> Sample:
        """Neighbouring steps summed up, at most 200 blocks: a block bootstrap (Carlstein 1986) allows for
        steps that resemble their neighbours, and long traces cost no more than short ones."""
        if self.weights is None or len(self) <= _BLOCKS:
            return self
        starts = np.linspace(0, len(self), _BLOCKS, endpoint=False).astype(np.int64)
        return Sample(np.add.reduceat(self.values, starts), np.add.reduceat(self.weights, starts))


def median_of(values: npt.ArrayLike) -> Sample:
    """Iterations, of which the median counts."""
    return Sample(np.asarray(values, dtype=np.float64))


def ratio_of(values: npt.ArrayLike, weights: npt.ArrayLike) -> Sample:
    """Parts, of which sum(values) / sum(weights) counts."""
    return Sample(np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64))


def estimate(sample: Sample, rng: np.random.Generator | None = None) -> Estimate:
    """The sample's number with its interval."""
    blocks = sample.blocks()
    interval = _interval(blocks.at, [len(blocks)], rng)
    return Estimate(sample.value, *interval, n=len(sample))


def change(
    a: Sample,
    b: Sample,
    *,
    relative: bool,
    paired: bool | None = None,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """How far `b` lies above `a`: b − a, or b/a − 1 if `relative`, with the interval of that.

    Repetitions that pair (`paired`; left out: where there are as many of both, in their order) are drawn
    together, so that what they share, like a drift after the start, cancels. `n` is the smaller of the two.
    """
    a_blocks, b_blocks = a.blocks(), b.blocks()

    def difference(of_a: Floats, of_b: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(of_b / of_a - 1 if relative else of_b - of_a)

    together = len(a) == len(b) if paired is None else paired
    if together:
        interval = _interval(
            lambda draws: difference(a_blocks.at(draws), b_blocks.at(draws)), [len(a_blocks)], rng
        )
    else:
        counts = [len(a_blocks), len(b_blocks)]
        interval = _interval(lambda x, y: difference(a_blocks.at(x), b_blocks.at(y)), counts, rng)
    value = float(difference(np.asarray(a.value), np.asarray(b.value)))
    return Estimate(value, *interval, n=min(len(a), len(b)))


def change_of_estimates(a: Estimate, b: Estimate, *, relative: bool) -> Estimate:
    """The same from two estimates whose repetitions are not at hand, taken as independent.

    The distances to the limits are added in quadrature (MOVER: Zou and Donner, Statistics in Medicine 27,
    2008); for a ratio, those of the logarithms, so that a positive number never falls by more than 100%.
    Without interval where one of the two has none, and for ratios of what isn't positive.
    """
    if not relative:
        return _difference_of(a, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.float64(b.value) / a.value - 1)
    if not (a.value > 0 and b.value > 0):
        return Estimate(value, None, None, min(a.n, b.n))
    found = _difference_of(_logarithm(a), _logarithm(b))
    low, high = (None if limit is None else float(np.expm1(limit)) for limit in (found.low, found.high))
    return Estimate(value, low, high, found.n)


def _difference_of(a: Estimate, b: Estimate) -> Estimate:
    value, n = b.value - a.value, min(a.n, b.n)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value, None, None, n)
    below = np.hypot(b.value - b.low, a.high - a.value)
    above = np.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value, float(value - below), float(value + above), n)


def _logarithm(of: Estimate) -> Estimate:
    """Of a positive estimate; a limit that isn't positive tells nothing, and becomes −∞."""
    value, low, high = (
        None if one is None else float(np.log(one)) if one > 0 else -np.inf
        for one in (of.value, of.low, of.high)
    )
    assert value is not None
    return Estimate(value, low, high, of.n)


def relative_spread(value: float, low: float | None, high: float | None) -> float | None:
    """Half of an interval's width as a share of its value."""
    if low is None or high is None or value == 0:
        return None
    return (high - low) / 2 / abs(value)


def metric_spread(metrics: Mapping[str, float], name: str) -> float | None:
    """The same of a metric that has `.low` and `.high` beside it; None if it has not."""
    return relative_spread(metrics[name], metrics.get(f"{name}.low"), metrics.get(f"{name}.high"))


def unstable_remark(metrics: Mapping[str, float], name: str) -> str:
    """The remark "unstable ±3.1%" on a median known to no better than 2%; of others an empty one."""
    spread = metric_spread(metrics, name)
    return f"unstable ±{spread:.1%}" if spread is not None and spread > UNSTABLE_ABOVE else ""


def flat(name: str, found: Estimate) -> dict[str, float]:
    """An estimate as flat metrics: the name, and `.low` and `.high` where there is an interval."""
    if found.low is None or found.high is None:
        return {name: found.value}
    return {name: found.value, f"{name}.low": found.low, f"{name}.high": found.high}


def _interval(
    statistic: Callable[..., Floats], counts: Sequence[int], rng: np.random.Generator | None
) -> tuple[float | None, float | None]:
    """The 95% interval of a statistic of Draws: BCa (Efron 1987); the percentiles where that is undefined, as
    it is for repetitions that are all alike.

    The same numbers as scipy.stats.bootstrap's, whose import alone takes a second, and which draws anew for
    each of the dozens of intervals of a comparison.
    """
    if min(counts) < MIN_SAMPLES:
        return None, None
    drawn = statistic(*(_draw_once(*counts) if rng is None else _draw(counts, rng)))
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return None, None
    levels = None
    if len(finite) == len(drawn) and max(counts) <= _BCA_BELOW:
        levels = _bca_levels(statistic, counts, drawn)
    low, high = np.quantile(finite, levels or ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def _bca_levels(
    statistic: Callable[..., Floats], counts: Sequence[int], drawn: Floats
) -> tuple[float, float] | None:
    """The quantiles of `drawn` that BCa takes (Efron and Tibshirani 1993, 14.3); None where undefined."""
    whole = [_everything(count) for count in counts]
    value = statistic(*whole)[0]
    below = (np.count_nonzero(drawn < value) + np.count_nonzero(drawn <= value)) / 2 / len(drawn)
    cubes = squares = 0.0
    for place, count in enumerate(counts):
        jackknife = statistic(*whole[:place], _all_but_one(count), *whole[place + 1 :])
        pull = (count - 1) * (jackknife.mean() - jackknife)
        cubes += float((pull**3).sum()) / count**3
        squares += float((pull**2).sum()) / count**2
    if not (0 < below < 1 and squares > 0):
        return None
    normal, acceleration = NormalDist(), cubes / 6 / squares**1.5
    bias = normal.inv_cdf(below)
    shifted = [bias + normal.inv_cdf((1 + side * CONFIDENCE) / 2) for side in (-1, 1)]
    low, high = (normal.cdf(bias + one / (1 - acceleration * one)) for one in shifted)
    return low, high


def _draw(counts: Sequence[int], rng: np.random.Generator) -> tuple[Draws, ...]:
    return tuple(Draws(rng.integers(0, count, (_RESAMPLES, count)), count) for count in counts)


@lru_cache(maxsize=4)
def _draw_once(*counts: int) -> tuple[Draws, ...]:
    """What the generator of its own draws for every number with so many repetitions."""
    return _draw(counts, generator())


def _everything(count: int) -> Draws:
    return Draws(np.arange(count)[None, :], count)


@lru_cache(maxsize=4)
def _all_but_one(count: int) -> Draws:
    """Each repetition left out once."""
    rows = np.arange(count - 1) + (np.arange(count - 1) >= np.arange(count)[:, None])
    return Draws(rows, count)
