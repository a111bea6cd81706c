"""The traces of two subjects beside each other, per repetition: phases, causes of idle time, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.accounting.account import account
from analysis.accounting.causes import CAUSES
from analysis.accounting.phases import DECODE, HARNESS_DOMAIN, ITERATION
from analysis.comparison.numbers import Change, of_samples
from analysis.reading.trace import Trace
from analysis.repetitions import PIECE, STEPS, WINDOW, Repeats, Unit, label, shared_unit
from analysis.statistics import Sample, ratio_of

_PHASES = 12
_KERNELS = 20
_KERNEL_NOISE_US = 0.05  # of a repetition: smaller changes are not worth a row


@dataclass(frozen=True)
class Side:
    """What a comparison needs of a trace, which may be closed by then. phases: see `Account.phases`."""

    name: str
    phases: pd.DataFrame
    repeats: Repeats
    gpus: str
    nsys: str
    whole_graphs: bool
    warnings: list[str]

    @classmethod
    def of(cls, name: str, trace: Trace) -> Side:
        """Analyse a trace that has GPU work."""
        acc = account(trace)
        return cls(
            name,
            acc.phases,
            Repeats(trace, acc),
            gpus=", ".join(sorted({gpu.name for gpu in trace.info.gpus})),
            nsys=trace.info.product_version,
            whole_graphs=bool((acc.kernels["kind"] == "graph").any()),
            warnings=acc.warnings,
        )

    def count(self, unit: Unit) -> int:
        """How many ranges of this name there are."""
        same = (self.phases["domain"] == unit[0]) & (self.phases["name"] == unit[1])
        return int(self.phases.loc[same, "count"].sum())


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
    unit = shared_unit([a.phases, b.phases])
    mine, theirs = a.repeats.of(unit), b.repeats.of(unit)
    every = f"{label(unit)}s"

    def per_unit(metric: str, of: Sequence[str], scale: float = 1e3) -> Change:
        x, y = (_mean(table[list(of)].sum(axis=1), scale) for table in (mine, theirs))
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


def _mean(values: pd.Series | np.ndarray, scale: float = 1e3) -> Sample:
    """The mean per repetition, divided by `scale`: by default µs, of ns."""
    return ratio_of(values, np.full(len(values), scale))


def _phases(a: Side, b: Side) -> list[Change]:
    """The phases with GPU work in both, each per occurrence."""
    theirs = {_key(row): row for row in b.phases.to_dict("records")}
    found = []
    for row in a.phases.to_dict("records"):
        other = theirs.get(_key(row))
        if other is None or not (row["work"] and other["work"]) or _cut_short(a, b, _key(row)):
            continue
        x, y = (_mean(t["busy_ns"] + t["idle_ns"]) for t in (s.repeats.of(_key(row)) for s in (a, b)))
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
    steps = [side.count(STEPS) / side.count(unit) for side in (a, b)]
    return steps[0] != steps[1]


def _kernels(a: Side, b: Side, unit: Unit, counts: tuple[int, int]) -> tuple[list[KernelChange], int]:
    """The kernels whose time per repetition changed most, and how many changed in all."""
    pieces = [side.repeats.pieces(unit).set_index(PIECE) for side in (a, b)]
    sums = [one / n for one, n in zip(pieces, counts, strict=True)]
    both = sums[0].join(sums[1], how="outer", lsuffix="_a", rsuffix="_b").fillna(0.0)
    delta_us = ((both["total_ns_b"] - both["total_ns_a"]) / 1e3).abs()
    changed = delta_us[delta_us > _KERNEL_NOISE_US].sort_values(ascending=False, kind="stable")
    shown = changed.index[:_KERNELS]
    mine, theirs = (
        side.repeats.times_ns(unit, one.index.get_indexer(shown))
        for side, one in zip((a, b), pieces, strict=True)
    )
    found = []
    for (name, shape, kind), x, y in zip(shown, mine, theirs, strict=True):
        calls = both.loc[(name, shape, kind), ["count_a", "count_b"]].to_numpy(dtype=np.float64)
        time = of_samples("kernel_us", _mean(x), _mean(y), f"{label(unit)}s")
        found.append(KernelChange(name, shape, kind, (float(calls[0]), float(calls[1])), time))
    return found, len(changed)


def _warnings(a: Side, b: Side, unit: Unit) -> list[str]:
    found = [f"{side.name}: {warning}" for side in (a, b) for warning in side.warnings]
    if a.gpus != b.gpus:
        found.append(f"differs: GPU of the trace: {a.gpus or 'unknown'} and {b.gpus or 'unknown'}")
    if a.nsys != b.nsys:
        found.append(f"differs: nsys: {a.nsys or 'unknown'} and {b.nsys or 'unknown'}")
    if a.whole_graphs != b.whole_graphs:
        found.append(
            "one trace has its CUDA graphs as a whole: kernels, and gaps between them, don't compare"
        )
    if unit == WINDOW:
        found.append("no ranges in common: whole traces are compared, whatever they lasted")
    return found
