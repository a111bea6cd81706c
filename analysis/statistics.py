"""How well a number is known: bootstrap confidence intervals over iterations, or over the steps of a trace.

What is resampled are the repetitions within one process. What differs from process to process (where memory
lies, which core the host runs on) is not in the intervals: to see that, run again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
MIN_SAMPLES = 6  # the range of six covers their median with 1 − 2·0.5⁶ = 97%, that of five with 94%
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
        return float(self.at(np.arange(len(self)))) if len(self) else float("nan")

    def at(self, rows: Ints) -> Floats:
        """The number for each resample: rows [..., n] to [...]."""
        if self.weights is None:
            return np.asarray(np.median(self.values[rows], axis=-1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.values[rows].sum(axis=-1) / self.weights[rows].sum(axis=-1))

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
            lambda rows: difference(a_blocks.at(rows), b_blocks.at(rows)), [len(a_blocks)], rng
        )
    else:
        counts = [len(a_blocks), len(b_blocks)]
        interval = _interval(lambda x, y: difference(a_blocks.at(x), b_blocks.at(y)), counts, rng)
    value = float(difference(np.asarray(a.value), np.asarray(b.value)))
    return Estimate(value, *interval, n=min(len(a), len(b)))


def change_of_estimates(a: Estimate, b: Estimate, *, relative: bool) -> Estimate:
    """The same from two estimates whose repetitions are not at hand, taken as independent.

    The distances to the limits are added in quadrature (MOVER: Zou and Donner, Statistics in Medicine 27,
    2008); for a ratio, as shares of the values. Without interval where one of the two has none.
    """
    value = b.value - a.value
    scale_a = scale_b = 1.0
    if relative:
        value = float(np.float64(b.value) / a.value - 1) if a.value else float("nan")
        scale_a, scale_b = (1 + value) / a.value if a.value else float("nan"), 1 / (a.value or float("nan"))
    n = min(a.n, b.n)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value, None, None, n)
    below = np.hypot((b.value - b.low) * scale_b, (a.high - a.value) * scale_a)
    above = np.hypot((b.high - b.value) * scale_b, (a.value - a.low) * scale_a)
    return Estimate(value, float(value - below), float(value + above), n)


def relative_spread(value: float, low: float | None, high: float | None) -> float | None:
    """Half of an interval's width as a share of its value."""
    if low is None or high is None or value == 0:
        return None
    return (high - low) / 2 / abs(value)


def metric_spread(metrics: Mapping[str, float], name: str) -> float | None:
    """The same of a metric that has `.low` and `.high` beside it; None if it has not."""
    return relative_spread(metrics[name], metrics.get(f"{name}.low"), metrics.get(f"{name}.high"))


def flat(name: str, found: Estimate) -> dict[str, float]:
    """An estimate as flat metrics: the name, and `.low` and `.high` where there is an interval."""
    if found.low is None or found.high is None:
        return {name: found.value}
    return {name: found.value, f"{name}.low": found.low, f"{name}.high": found.high}


def _interval(
    statistic: Callable[..., Floats], counts: Sequence[int], rng: np.random.Generator | None
) -> tuple[float | None, float | None]:
    """The 95% interval of a statistic of row numbers: BCa (Efron 1987); the percentiles where that is
    undefined, as it is for repetitions that are all alike."""
    if min(counts) < MIN_SAMPLES:
        return None, None
    from scipy import stats

    rows = tuple(np.arange(count) for count in counts)
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # of degenerate data, which are dealt with below
        found = stats.bootstrap(
            rows,
            lambda *drawn, axis: statistic(*drawn),
            n_resamples=_RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa" if max(counts) <= _BCA_BELOW else "percentile",
            vectorized=True,
            rng=rng or generator(),
        )
    low, high = found.confidence_interval
    if not np.isfinite([low, high]).all():
        drawn = found.bootstrap_distribution
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return None, None
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
