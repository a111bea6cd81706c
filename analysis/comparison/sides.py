"""The traces of two subjects beside each other, per repetition: phases, causes of idle time, kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.accounting.account import account
from analysis.accounting.causes import CAUSES
from analysis.comparison import work
from analysis.comparison.numbers import Change, of_samples
from analysis.comparison.subjects import ONE_HAS_WHOLE_GRAPHS, Subject
from analysis.reading.trace import Trace
from analysis.repetitions import PIECE, WINDOW, Repeats, Unit, idle_share, label, shared_units
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
    steps: work.Steps
    gpus: str
    nsys: str
    whole_graphs: bool
    warnings: list[str]

    @classmethod
    def of(cls, subject: Subject, trace: Trace) -> Side:
        """Analyse a subject's trace, which has GPU work."""
        acc = account(trace)
        counts = {_key(row): int(row["count"]) for row in acc.phases.to_dict("records")}
        return cls(
            subject.name,
            acc.phases,
            Repeats(trace, acc),
            work.Steps(subject.name, counts, subject.steps_per_iteration, subject.tokens_per_step),
            gpus=", ".join(sorted({gpu.name for gpu in trace.info.gpus})),
            nsys=trace.info.product_version,
            whole_graphs=trace.whole_graphs,
            warnings=acc.warnings,
        )


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
    `kernels_in_all`. left_out: phases that don't compare, each with the reason. split: whether busy and idle
    time mean the same in both. gpus: at work in that unit; times are summed over them, so of other numbers
    not even the total compares.

    Where nothing that repeats is the same work in both, unit and total are None, `reason` says why, and only
    phases and left_out have entries.
    """

    phases: list[Change]
    left_out: dict[str, str]
    unit: str | None = None
    reason: str = ""
    counts: tuple[int, int] = (0, 0)
    gpus: tuple[int, int] = (0, 0)
    total: Change | None = None
    parts: list[Change] = field(default_factory=list)
    others: list[Change] = field(default_factory=list)
    kernels: list[KernelChange] = field(default_factory=list)
    kernels_in_all: int = 0
    split: bool = True
    warnings: list[str] = field(default_factory=list)

    @property
    def says_which_is_faster(self) -> bool:
        return self.total is not None and self.gpus[0] == self.gpus[1]

    def as_json(self) -> dict[str, Any]:
        lists = {
            name: [one.as_json() for one in getattr(self, name)] for name in ("parts", "others", "phases")
        }
        kernels = [one.as_json() for one in self.kernels]
        left_out = [{"phase": phase, "why": why} for phase, why in self.left_out.items()]
        total = self.total.as_json() if self.total else None
        found = {"unit": self.unit, "counts": self.counts, "gpus": self.gpus, "total": total}
        rest = {"kernels": kernels, "kernels_in_all": self.kernels_in_all, "left_out": left_out}
        return {**found, **lists, **rest}


def compare(a: Side, b: Side) -> TraceChanges:
    """Compare two traces by the best unit that is the same work in both; of different length, they still
    compare by their steps."""
    unit, reason = work.best_unit(shared_units([a.phases, b.phases]), a.steps, b.steps)
    phases, left_out = _phases(a, b)
    warnings = _warnings(a, b, unit) + work.warnings(unit, reason, a.steps, b.steps)
    split = a.whole_graphs == b.whole_graphs
    common = TraceChanges(phases, left_out, reason=reason, split=split, warnings=warnings)
    if unit is None:
        return common
    gpus = a.repeats.gpus(unit), b.repeats.gpus(unit)
    if other := work.other_gpus(a.name, b.name, gpus):
        common = replace(common, reason=f"{other}, and traced times are summed over GPUs")
    warnings += work.gpu_warnings(other, label(unit), gpus)
    return replace(common, gpus=gpus, **_by_unit(a, b, unit))


def _by_unit(a: Side, b: Side, unit: Unit) -> dict[str, Any]:
    """The fields of TraceChanges that are per repetition."""
    mine, theirs = a.repeats.of(unit), b.repeats.of(unit)
    every = f"{label(unit)}s"

    def per_unit(metric: str, of: Sequence[str], scale: float = 1e3) -> Change:
        x, y = (_mean(table[list(of)].sum(axis=1), scale) for table in (mine, theirs))
        return of_samples(metric, x, y, every)

    kernels, in_all = _kernels(a, b, unit, (len(mine), len(theirs)))
    shares = of_samples("idle_share", idle_share(mine), idle_share(theirs), every)
    return {
        "unit": label(unit),
        "counts": (len(mine), len(theirs)),
        "total": per_unit("total_us", ["busy_ns", "idle_ns"]),
        "parts": [per_unit("busy_us", ["busy_ns"])]
        + [per_unit(f"{one}_us", [f"{one}_ns"]) for one in CAUSES],
        "others": [shares, per_unit("kernels", ["kernels"], 1.0)],
        "kernels": kernels,
        "kernels_in_all": in_all,
    }


def _mean(values: pd.Series | np.ndarray, scale: float = 1e3) -> Sample:
    """The mean per repetition, divided by `scale`: by default µs, of ns."""
    return ratio_of(values, np.full(len(values), scale))


def _phases(a: Side, b: Side) -> tuple[list[Change], dict[str, str]]:
    """The phases with GPU work in both, each per occurrence; and the others, with the reason."""
    mine, theirs = (
        {_key(row): row for row in side.phases.to_dict("records") if row["work"]} for side in (a, b)
    )
    found: list[Change] = []
    left_out: dict[str, str] = {}
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        name = ":".join(part for part in key if part)
        if key not in mine or key not in theirs:
            why = f"only in {a.name if key in mine else b.name}"
        else:
            gpus = a.repeats.gpus(key), b.repeats.gpus(key)
            why = work.difference(key, a.steps, b.steps) or work.other_gpus(a.name, b.name, gpus)
        if why:
            left_out |= {name: why} if len(left_out) < _PHASES else {}
        elif len(found) < _PHASES:
            x, y = (_mean(t["busy_ns"] + t["idle_ns"]) for t in (s.repeats.of(key) for s in (a, b)))
            found += [of_samples(name, x, y, key[1], unit="µs")] if len(x) and len(y) else []
    return found, left_out


def _key(row: Mapping[Any, Any]) -> Unit:
    return str(row["domain"]), str(row["name"])


def _kernels(a: Side, b: Side, unit: Unit, counts: tuple[int, int]) -> tuple[list[KernelChange], int]:
    """The kernels whose time per repetition changed most, and how many changed in all."""
    pieces = [side.repeats.pieces(unit).set_index(PIECE) for side in (a, b)]
    sums = [one / n for one, n in zip(pieces, counts, strict=True)]
    both = (
        sums[0].merge(sums[1], "outer", left_index=True, right_index=True, suffixes=("_a", "_b")).fillna(0.0)
    )
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


def _warnings(a: Side, b: Side, unit: Unit | None) -> list[str]:
    found = [f"{side.name}: {warning}" for side in (a, b) for warning in side.warnings]
    if a.gpus != b.gpus:
        found.append(f"differs: GPU of the trace: {a.gpus or 'unknown'} and {b.gpus or 'unknown'}")
    if a.nsys != b.nsys:
        found.append(f"differs: nsys: {a.nsys or 'unknown'} and {b.nsys or 'unknown'}")
    if a.whole_graphs != b.whole_graphs:
        found.append(ONE_HAS_WHOLE_GRAPHS)
    if a.whole_graphs and b.whole_graphs:
        found.append("both traces have CUDA graphs as a whole: busy time includes the gaps inside them")
    if unit == WINDOW:
        found.append("no ranges in common: whole traces are compared, whatever they lasted")
    return found
