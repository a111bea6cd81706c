"""The traces of two subjects beside each other, per repetition: phases, causes of idle time, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.accounting import Account
from analysis.causes import CAUSES
from analysis.comparison.numbers import Change, of_samples
from analysis.phases import HARNESS_DOMAIN, ITERATION
from analysis.repetitions import DECODE, PIECE, STEPS, WINDOW, Repeats, Unit, label, shared_unit
from analysis.statistics import Sample, ratio_of
from analysis.trace import Trace

_PHASES = 12
_KERNELS = 20
_KERNEL_NOISE_US = 0.05  # of a repetition: smaller changes are not worth a row


@dataclass(frozen=True)
class Side:
    """An open trace with its account."""

    name: str
    trace: Trace
    acc: Account
    repeats: Repeats

    @classmethod
    def of(cls, name: str, trace: Trace, acc: Account) -> Side:
        return cls(name, trace, acc, Repeats(trace, acc))


@dataclass(frozen=True)
class KernelChange:
    """A kernel (or copy) in two traces, per repetition: `calls` of both, and the change of its time in µs."""

    name: str
    shape: str
    kind: str
    calls: tuple[float, float]
    time: Change

    def as_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("name", "shape", "kind", "calls")}
        return {**fields, **self.time.as_json()}


@dataclass(frozen=True)
class TraceChanges:
    """What changed between two traces. Times are µs per repetition of `unit`.

    total: busy + idle. parts: busy, then idle by cause; they add up to the total. others: idle_share and
    kernels. phases: busy + idle per occurrence of each phase. kernels: the largest changes of
    `kernels_in_all`.
    """

    unit: str
    counts: tuple[int, int]
    total: Change
    parts: list[Change]
    others: list[Change]
    phases: list[Change]
    kernels: list[KernelChange]
    kernels_in_all: int
    warnings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        lists = {
            name: [one.as_json() for one in getattr(self, name)] for name in ("parts", "others", "phases")
        }
        kernels = [one.as_json() for one in self.kernels]
        found = {"unit": self.unit, "counts": self.counts, "total": self.total.as_json()}
        return {**found, **lists, "kernels": kernels, "kernels_in_all": self.kernels_in_all}


def compare(a: Side, b: Side) -> TraceChanges:
    """Compare two traces by the best unit that both have; of different length, they still compare."""
    unit = shared_unit([a.acc, b.acc])
    mine, theirs = a.repeats.of(unit), b.repeats.of(unit)
    every = f"{label(unit)}s"

    def per_unit(metric: str, of: Sequence[str], scale: float = 1e3) -> Change:
        x, y = (_mean(table[list(of)].sum(axis=1) / scale) for table in (mine, theirs))
        return of_samples(metric, x, y, every)

    kernels, in_all = _kernels(a, b, unit, (len(mine), len(theirs)))
    return TraceChanges(
        unit=label(unit),
        counts=(len(mine), len(theirs)),
        total=per_unit("total_us", ["busy_ns", "idle_ns"]),
        parts=[per_unit("busy_us", ["busy_ns"])] + [per_unit(f"{one}_us", [f"{one}_ns"]) for one in CAUSES],
        others=[
            of_samples("idle_share", _idle_share(mine), _idle_share(theirs), every),
            per_unit("kernels", ["kernels"], 1.0),
        ],
        phases=_phases(a, b),
        kernels=kernels,
        kernels_in_all=in_all,
        warnings=_warnings(a, b, unit),
    )


def _idle_share(table: pd.DataFrame) -> Sample:
    return ratio_of(table["idle_ns"], table["idle_ns"] + table["busy_ns"])


def _mean(values: pd.Series | np.ndarray) -> Sample:
    values = np.asarray(values, dtype=np.float64)
    return ratio_of(values, np.ones(len(values)))


def _phases(a: Side, b: Side) -> list[Change]:
    """The phases with GPU work in both, each per occurrence."""
    theirs = {_key(row): row for row in b.acc.phases.to_dict("records")}
    found = []
    for row in a.acc.phases.to_dict("records"):
        other = theirs.get(_key(row))
        if other is None or not (row["work"] and other["work"]) or _cut_short(a, b, _key(row)):
            continue
        x, y = (_mean((t["busy_ns"] + t["idle_ns"]) / 1e3) for t in (s.repeats.of(_key(row)) for s in (a, b)))
        if len(x) and len(y):
            found.append(of_samples(":".join(part for part in _key(row) if part), x, y, row["name"]))
        if len(found) == _PHASES:
            break
    return found


def _key(row: dict[Any, Any]) -> Unit:
    return str(row["domain"]), str(row["name"])


def _cut_short(a: Side, b: Side, unit: Unit) -> bool:
    """Whether this phase holds decode steps, and not as many in both traces: then it doesn't compare."""
    if unit[0] != HARNESS_DOMAIN or unit[1] not in (ITERATION, DECODE):
        return False
    steps = []
    for side in (a, b):
        inner, outer = side.acc.phase(STEPS[1]), side.acc.phase(unit[1])
        steps.append(None if inner is None or outer is None else inner["count"] / outer["count"])
    return steps[0] != steps[1]


def _kernels(a: Side, b: Side, unit: Unit, counts: tuple[int, int]) -> tuple[list[KernelChange], int]:
    """The kernels whose time per repetition changed most, and how many changed in all."""
    pieces = [side.repeats.pieces(unit) for side in (a, b)]
    sums = [
        one.groupby(PIECE)[["count", "total_ns"]].sum() / n for one, n in zip(pieces, counts, strict=True)
    ]
    both = sums[0].join(sums[1], how="outer", lsuffix="_a", rsuffix="_b").fillna(0.0)
    delta_us = ((both["total_ns_b"] - both["total_ns_a"]) / 1e3).abs()
    changed = delta_us[delta_us > _KERNEL_NOISE_US].sort_values(ascending=False, kind="stable")
    found = []
    for name, shape, kind in changed.index[:_KERNELS]:
        key = (name, shape, kind)
        x, y = (_of_kernel(one, key, n) for one, n in zip(pieces, counts, strict=True))
        calls = both.loc[key, ["count_a", "count_b"]].to_numpy(dtype=np.float64)
        time = of_samples("kernel_us", x, y, f"{label(unit)}s")
        found.append(KernelChange(name, shape, kind, (float(calls[0]), float(calls[1])), time))
    return found, len(changed)


def _of_kernel(pieces: pd.DataFrame, key: tuple[str, str, str], count: int) -> Sample:
    """Its time in each repetition, µs: 0 where it did not run."""
    same = np.logical_and.reduce([pieces[column] == value for column, value in zip(PIECE, key, strict=True)])
    mine = pieces[same]
    spent = np.bincount(mine["repetition"], mine["total_ns"] / 1e3, minlength=count)
    return _mean(spent)


def _warnings(a: Side, b: Side, unit: Unit) -> list[str]:
    found = [f"{side.name}: {warning}" for side in (a, b) for warning in side.acc.warnings]
    gpus = [", ".join(sorted({gpu.name for gpu in side.trace.info.gpus})) for side in (a, b)]
    if gpus[0] != gpus[1]:
        found.append(f"differs: GPU of the trace: {gpus[0] or 'unknown'} and {gpus[1] or 'unknown'}")
    versions = [side.trace.info.product_version for side in (a, b)]
    if versions[0] != versions[1]:
        found.append(f"differs: nsys: {versions[0] or 'unknown'} and {versions[1] or 'unknown'}")
    whole = [(side.acc.kernels["kind"] == "graph").any() for side in (a, b)]
    if whole[0] != whole[1]:
        found.append(
            "one trace has its CUDA graphs as a whole: kernels, and gaps between them, don't compare"
        )
    if unit == WINDOW:
        found.append("no ranges in common: whole traces are compared, whatever they lasted")
    return found
