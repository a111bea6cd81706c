"""What each kernel did while it ran, from samples that are longer than the kernels.

A sample of 10 µs mixes several kernels of 2 to 5 µs, always in another proportion. With a_sk the part of
sample s that kernel k ran, and v_k the metric while it runs, sample s shows Σ_k a_sk·v_k (an idle device
shows nothing). Over thousands of samples that is a linear regression with more equations than unknowns; it
assumes that a kernel has the same value in each of its runs and throughout each run. What a kernel leaves
behind, like cache lines written back after its end, counts for its successors.

Intervals are about sampling, rounding and clocks, not about these assumptions. Beside Nsight Compute's counts
of the same decode step on an H200, kernels that move 3 MB or more came out within 10%; one whose weights are
small enough to stay in L2 came out up to a third lower, perhaps rightly: Nsight Compute empties the caches
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from analysis.engine.intervals import Ints
from analysis.memory.samples import DRAM, Floats, Samples

# scipy takes half a second to import: only where there are samples to use it on.
if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MIN_SAMPLES = 10  # effective samples (see Fit) below which no value is given
MAX_WIDTH_PCT = 25.0  # no value either if its 95% interval is wider: it could be anywhere
SEARCHED_PERIODS = 3  # the clock offset is searched within so many sampling periods
MIN_BLOCKS = 5  # blocks of time in which a kernel has to occur before resampling them says anything

RESOLUTION_PCT = 0.5  # no interval is narrower to either side: half of the unit in which nsys stores

DRAM_TOTAL = "dram_pct"

_BLOCK_SAMPLES = 64  # correlated neighbours stay together when blocks are resampled
_MAX_BLOCKS = 1000
_ROUNDING_STEPS = 20
_RIDGE = 1e-10
_RESAMPLES = 100
_LEVELS = (2.5, 97.5)
_OFFSET_STEP_NS = 10  # times of kernels come in steps of 32 ns
_OFFSET_SAMPLES = 40_000  # that many in a row are enough for it
_OFFSET_TARGETS = ("sm_active_pct", "dram_read_pct", "gr_active_pct")


@dataclass(frozen=True)
class Fit:
    """Values per kind of work (columns of the regression) and metric, all percent of the device's peak.

    value: metric to [kinds]; low, high: [kinds], the 95% interval of `dram_pct`, reads and writes together.
    NaN
        where the evidence is too thin.
    exact: metric to the samples without rounding [samples], see `unrounded`.
    samples: [kinds], how many samples of nothing but this kind would be as precise as the mixed ones were
        (1 / [(AᵀA)⁻¹]_kk: overlap with kernels that always come together counts little).
    blocks: [kinds], stretches of time in which it occurs.
    r2: metric to the part of the samples' variance that the regression explains.
    """

    value: dict[str, Floats]
    low: Floats
    high: Floats
    exact: dict[str, Floats]
    samples: Floats
    blocks: Ints
    r2: dict[str, float]


def overlap(start: Ints, end: Ints, work_start: Ints, work_end: Ints, code: Ints, codes: int) -> csr_matrix:
    """The part of each interval that each kind of work ran: sparse [intervals, codes], 1 is all of it.

    The intervals [start, end) are sorted and don't overlap. Work that overlaps counts each.
    """
    from scipy.sparse import csr_matrix

    first = np.searchsorted(end, work_start, side="right")
    last = np.searchsorted(start, work_end, side="left")
    touched = np.maximum(last - first, 0)
    row = np.repeat(first - np.concatenate([[0], np.cumsum(touched)[:-1]]), touched)
    row = row + np.arange(len(row))
    which = np.repeat(np.arange(len(code)), touched)
    common = np.minimum(end[row], work_end[which]) - np.maximum(start[row], work_start[which])
    part = np.maximum(common, 0) / (end[row] - start[row])
    return csr_matrix((part, (row, code[which])), shape=(len(start), codes))


def clock_offset(samples: Samples, start: Ints, end: Ints, code: Ints, codes: int) -> tuple[int, float]:
    """How far the samples' clock is ahead of the kernels', ns, and the R² of the regression with it.

    That offset under which kernels explain the samples best, by grid search within three sampling periods.
    """
    first = max((len(samples) - _OFFSET_SAMPLES) // 2, 0)
    part = slice(first, first + _OFFSET_SAMPLES)
    targets = [samples.values[name][part] for name in _OFFSET_TARGETS if name in samples.values]
    usable = [target for target in targets if np.isfinite(target).all() and target.std() > 0]
    if not usable:
        return 0, 0.0
    wanted = np.stack(usable, axis=1)
    reach = SEARCHED_PERIODS * samples.period_ns
    near = (end > samples.start_ns[part][0] - 2 * reach) & (start < samples.end_ns[part][-1] + 2 * reach)
    work = start[near], end[near], code[near]

    def explained(offset: int) -> float:
        design = overlap(samples.start_ns[part] - offset, samples.end_ns[part] - offset, *work, codes)
        gram, moment = (design.T @ design).toarray(), design.T @ wanted
        model = np.linalg.solve(_ridged(gram), moment)
        left = (wanted**2).sum(axis=0) - (model * moment).sum(axis=0)
        return float(1 - np.mean(left / (len(wanted) * wanted.var(axis=0))))

    best, step = 0, samples.period_ns / 4
    grid = np.arange(-reach, reach + 1, step)
    while True:
        fits = [explained(round(offset)) for offset in grid]
        best = round(grid[int(np.argmax(fits))])
        if step <= _OFFSET_STEP_NS:
            return best, max(fits)
        grid = best + np.linspace(-step, step, 9)
        step /= 4


def unrounded(design: csr_matrix, stored: dict[str, Floats]) -> dict[str, Floats]:
    """The samples with their fractions of a percent, per metric [samples].

    nsys stores whole percents, rounded up: next to nothing is 1. (2025.3 on an H200: a third of the samples
    say that 1% of the peak is written, where Nsight Compute counts no bytes.) The mean of such samples is too
    high by half a percent, more than a small kernel does at all. The regression says where within its percent
    a sample lies, and the samples then correct the regression, in turn (alternating projections onto the
    model and onto the percents).
    """
    cell = np.stack(list(stored.values()), axis=1)
    least = np.maximum(cell - 1, 0)
    gram = (design.T @ design).toarray()
    exact = (least + cell) / 2
    for _ in range(_ROUNDING_STEPS):
        exact = np.clip(design @ _bounded(gram, design.T @ exact), least, cell)
    return dict(zip(stored, exact.T, strict=True))


def fit(
    design: csr_matrix,
    stored: dict[str, Floats],
    draw: np.random.Generator,
    shifted: Sequence[csr_matrix] = (),
) -> Fit:
    """Values of each kind of work from `stored`: metric to [samples], both DRAM metrics among them.

    `design` [samples, kinds] is from `overlap`. Least squares between 0 and 100%, on the samples without
    their rounding. The interval is a Bayesian bootstrap (Rubin 1981) over blocks of neighbouring samples,
    which keeps every kernel in every resample. It is extended by the value from the middle of the percents,
    and by those that the designs in `shifted` give, with clocks that are a little off: counters don't begin
    and end exactly with the kernel that they belong to. It is never narrower than RESOLUTION_PCT.
    """
    exact = unrounded(design, stored)
    exact[DRAM_TOTAL] = exact[DRAM[0]] + exact[DRAM[1]]
    gram, moment = _blocks(design, np.stack(list(exact.values()), axis=1))
    whole = gram.sum(axis=0)
    values = _bounded(whole, moment.sum(axis=0))
    total = list(exact).index(DRAM_TOTAL)
    middle = np.sum([np.maximum(stored[name] - 0.5, 0) for name in DRAM], axis=0)
    rounded = _bounded(whole, (design.T @ middle)[:, None])[:, 0]
    spread = [values[:, total], rounded, *_resampled(gram, moment[..., total], draw)]
    for other in shifted:
        again = unrounded(other, {name: stored[name] for name in DRAM})
        both = _bounded((other.T @ other).toarray(), other.T @ np.stack(list(again.values()), axis=1))
        spread.append(both.sum(axis=1))
    low = np.minimum(np.min(spread, axis=0), (values[:, total] - RESOLUTION_PCT).clip(min=0))
    high = np.maximum(np.max(spread, axis=0), values[:, total] + RESOLUTION_PCT)
    precision = _precision(whole)
    blocks = np.count_nonzero(np.diagonal(gram, axis1=1, axis2=2), axis=0)
    thin = (precision < MIN_SAMPLES) | (blocks < MIN_BLOCKS) | (high - low > MAX_WIDTH_PCT)
    low[thin], high[thin] = np.nan, np.nan
    r2 = {name: _explained(exact[name], design @ values[:, at]) for at, name in enumerate(exact)}
    known = {name: np.where(thin, np.nan, values[:, at]) for at, name in enumerate(exact)}
    return Fit(known, low, high, exact, precision, blocks, r2)


def _blocks(design: csr_matrix, wanted: Floats) -> tuple[Floats, Floats]:
    """Normal equations per block: [blocks, codes, codes] and [blocks, codes, metrics]."""
    rows, codes = design.shape
    blocks = int(np.clip(rows // _BLOCK_SAMPLES, 1, _MAX_BLOCKS))
    edges = np.linspace(0, rows, blocks + 1).astype(np.int64)
    gram = np.empty((blocks, codes, codes))
    moment = np.empty((blocks, codes, wanted.shape[1]))
    for block, (first, last) in enumerate(pairwise(edges)):
        part = design[first:last].toarray()
        gram[block] = part.T @ part
        moment[block] = part.T @ wanted[first:last]
    return gram, moment


def _resampled(gram: Floats, moment: Floats, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """The bounds [kinds] between which 95% of the resamples of the blocks lie."""
    weight = draw.exponential(size=(_RESAMPLES, len(gram)))
    values = [_bounded(np.tensordot(one, gram, axes=1), (one @ moment)[:, None])[:, 0] for one in weight]
    low, high = np.percentile(values, _LEVELS, axis=0)
    return low, high


def _precision(gram: Floats) -> Floats:
    """1 / [G⁻¹]_kk; next to 0 for a column that is empty or that others make up."""
    return 1 / np.diag(np.linalg.inv(_ridged(gram)))


def _bounded(gram: Floats, moment: Floats) -> Floats:
    """argmin ‖Av − y‖² with v ≥ 0, at most 100, from AᵀA [kinds, kinds] and Aᵀy [kinds, metrics]."""
    from scipy.linalg import solve_triangular
    from scipy.optimize import nnls

    upper = np.linalg.cholesky(_ridged(gram)).T
    target = solve_triangular(upper, moment, trans="T")
    return np.stack([nnls(upper, column)[0] for column in target.T], axis=1).clip(max=100)


def _ridged(gram: Floats) -> Floats:
    """The matrix with so little added to its diagonal that only what it leaves undetermined notices."""
    return gram + max(float(np.trace(gram)), 1.0) * _RIDGE * np.eye(len(gram))


def _explained(seen: Floats, model: Floats) -> float:
    spread = ((seen - seen.mean()) ** 2).sum()
    return float(1 - ((seen - model) ** 2).sum() / spread) if spread > 0 else np.nan
