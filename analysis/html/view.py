"""What report.html shows, before any of it is HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.phases import HARNESS_DOMAIN
from analysis.headline import cause_ns, headline
from analysis.html.breakdown import BUSY, Breakdown, breakdown
from analysis.html.longest import Gap, longest_gaps, text
from analysis.memory import memory_metrics
from analysis.reading.source import output_name, run_id
from analysis.reading.trace import Trace
from analysis.units import significant

if TYPE_CHECKING:
    from analysis.memory import Memory

# A page stays small however long the trace is: what is left out is counted on it.
TOP_GAPS, TOP_PATTERNS, TOP_PHASES, TOP_KERNELS = 15, 8, 30, 30


@dataclass(frozen=True)
class Phase:
    """One row of the phases' table; parts_ns: busy time and idle time by cause."""

    name: str
    count: int
    wall_ns: int
    parts_ns: Mapping[str, int]
    idle_share: float
    kernels: int
    gap_median_ns: float
    gap_p90_ns: float
    dram_gbps: float  # NaN where not measured, like bytes_per_range
    bytes_per_range: float

    @property
    def total_ns(self) -> int:
        return sum(self.parts_ns.values())


@dataclass(frozen=True)
class Pattern:
    """Gaps that recur between the same two kernels of a phase."""

    phase: str
    before: str
    after: str
    count: int
    total_ns: int
    median_ns: float
    share: float  # of all idle time


@dataclass(frozen=True)
class Traced:
    """What one trace says. Tables are cut to their first rows; `counts` has the full lengths by name.

    kernels: records of `Account.kernels`, phases joined, with the columns of `Memory.kernels` where there are
    some.
    """

    label: str
    headline: str
    bar: Breakdown
    gaps: Sequence[Gap]
    gaps_share: float  # of the idle time, in `gaps`
    patterns: Sequence[Pattern]
    phases: Sequence[Phase]
    kernels: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    memory: Memory | None
    warnings: Sequence[str]

    @property
    def has_dram(self) -> bool:
        """Whether the DRAM throughput of any kernel is known."""
        return any(pd.notna(kernel.get("dram_gbps")) for kernel in self.kernels)


@dataclass(frozen=True)
class Run:
    """A row of the comparison: a run's metrics by flat name (see results.db), measured and traced."""

    label: str
    metrics: Mapping[str, float]
    tokens: str = ""  # "reference", "identical", "differ from position 80"
    href: str = ""  # of its own report, relative
    note: str = ""


@dataclass(frozen=True)
class Expectation:
    """What was expected of a metric and what was found, in words; held: None where that is undecided."""

    metric: str
    expected: str  # "at most 15.0%"
    found: str  # empty where nothing was
    held: bool | None
    outcome: str  # "held", "undecided: not measurable here"


@dataclass(frozen=True)
class Hypothesis:
    """What a run was to show, and whether it did."""

    label: str
    claim: str
    expectations: Sequence[Expectation]
    outcome: str  # of all together: "held", "did not hold: speedup"
    tokens: str  # like href as in `Run`
    href: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything expected did not come true."""
        return any(one.held is False for one in self.expectations)


@dataclass(frozen=True)
class Report:
    """A whole page.

    bars: the runs whose time is compared, each against the first. traced: the traces that are shown in
    detail. runs: empty where there is nothing but a trace. hypotheses: of the runs that had one; a single
    one is shown in full, several with a line each. environment: pairs of a term and its value. notes: where
    the numbers come from. warnings: what limits them.
    """

    title: str
    headline: str
    bars: Sequence[Breakdown] = ()
    traced: Sequence[Traced] = ()
    runs: Sequence[Run] = ()
    hypotheses: Sequence[Hypothesis] = ()
    environment: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    subtitle: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)  # the few numbers on top, by what they are


def traced(
    trace: Trace,
    acc: Account,
    label: str,
    *,
    memory: Memory | None = None,
    ms_per_token: float | None = None,
    note: str = "",
) -> Traced:
    """The detail of a trace with GPU work. ms_per_token: the run's latency without a profiler."""
    gaps = longest_gaps(trace, acc, TOP_GAPS)
    idle_ns = max(int(acc.gaps["dur_ns"].sum()), 1)
    return Traced(
        label=label,
        headline=headline(acc, ms_per_token),
        bar=breakdown(trace, acc, label, ms_per_token, note),
        gaps=gaps,
        gaps_share=sum(gap.dur_ns for gap in gaps) / idle_ns,
        patterns=_patterns(acc, idle_ns),
        phases=_phases(acc, memory),
        kernels=_kernels(acc, memory),
        counts={name: len(getattr(acc, name)) for name in ("gaps", "phases", "kernels", "devices")},
        memory=memory,
        warnings=acc.warnings,
    )


def of_trace(trace: Trace, acc: Account, memory: Memory | None = None) -> Report:
    """The report of a trace about which nothing else is known."""
    info = trace.info
    gpus = ", ".join(sorted({gpu.name for gpu in info.gpus}))
    about = {
        "Trace": trace.path.name,
        "GPU": gpus,
        "Newest CUDA of the driver": info.cuda_driver,
        "Profiler": f"nsys {info.product_version}" if info.product_version else "",
        "Recorded": info.recorded_utc,
    }
    detail = traced(trace, acc, output_name(trace.path), memory=memory) if len(acc.devices) else None
    moved = memory_metrics(memory) if memory else {}
    return Report(
        title=" · ".join(filter(None, [run_id(trace.path), trace.path.name])),
        subtitle=" · ".join(filter(None, [gpus, info.recorded_utc[:10]])),
        headline=detail.headline if detail else headline(acc),
        bars=[detail.bar] if detail else [],
        traced=[detail] if detail else [],
        environment=[(term, value) for term, value in about.items() if value],
        notes=["All times come from the trace: what was profiled runs more slowly than without a profiler."],
        warnings=[] if detail else acc.warnings,
        figures=figures(detail.bar if detail else None, moved),
    )


def figures(bar: Breakdown | None, metrics: Mapping[str, float]) -> dict[str, str]:
    """The few numbers that stand on top of a page."""
    found: dict[str, str] = {}
    if "ms_per_token" in metrics:
        found["ms per token, unprofiled"] = significant(metrics["ms_per_token"])
    if bar is not None:
        around = ", around its graphs" if bar.graphs else ""
        found[("idle in decode" if bar.tokens else "idle") + around] = f"{bar.idle_share:.1%}"
        if bar.tokens:
            average = f", average of {bar.devices} GPUs" if bar.devices > 1 else ""
            found[f"ms per token, traced{average}"] = significant(bar.ms())
        found |= _counts(bar)
    if "decode.dram_share" in metrics:
        slowed = ", slowed by its recording" if bar is not None and bar.graphs else ""
        found[f"DRAM bandwidth in decode, of peak{slowed}"] = f"{metrics['decode.dram_share']:.1%}"
    if "wer" in metrics:
        found["word error rate"] = f"{metrics['wer']:.2%}"
    return found


def _counts(bar: Breakdown) -> dict[str, str]:
    """What was launched and by how many calls: a token's, and of whole graphs, which hold many, all."""
    counts = {"kernels": bar.kernels, "launch calls": bar.launch_calls}
    each = "per token" if bar.tokens else "in the window"
    if not bar.graphs:
        return {f"{what} {each}": f"{bar.per_unit(n):,.0f}" for what, n in counts.items() if n is not None}
    every = f" for {bar.units:,} tokens" if bar.tokens else " in all"
    found = {f"CUDA graphs{every}, traced as one piece each": f"{bar.graphs:,}"}
    return found if bar.launch_calls is None else found | {f"launch calls{every}": f"{bar.launch_calls:,}"}


def _patterns(acc: Account, idle_ns: int) -> list[Pattern]:
    grouped = acc.gaps.groupby(["phase", "before", "after"], observed=True, dropna=False)["dur_ns"]
    table = grouped.agg(["size", "sum", "median"]).nlargest(TOP_PATTERNS, "sum").reset_index()
    return [
        Pattern(
            phase=text(row["phase"]),
            before=text(row["before"]),
            after=text(row["after"]),
            count=int(row["size"]),
            total_ns=int(row["sum"]),
            median_ns=float(row["median"]),
            share=int(row["sum"]) / idle_ns,
        )
        for row in table.to_dict("records")
        if row["size"] > 1
    ]


def _phases(acc: Account, memory: Memory | None) -> list[Phase]:
    """The phases with the most time, in their own order."""
    table = acc.phases
    table = table.loc[(table["busy_ns"] + table["idle_ns"]).nlargest(TOP_PHASES).index.sort_values()]
    moved = memory.phases.set_index(["domain", "name"]) if memory is not None else pd.DataFrame()
    found = []
    for row in table.to_dict("records"):
        key, plain = (row["domain"], row["name"]), row["domain"] in ("", HARNESS_DOMAIN)
        traffic = moved.loc[key] if key in moved.index else {}
        same = ("count", "wall_ns", "idle_share", "kernels", "gap_median_ns", "gap_p90_ns")
        found.append(
            Phase(
                name=str(row["name"]) if plain else f"{row['domain']}:{row['name']}",
                parts_ns={BUSY: int(row["busy_ns"]), **cause_ns(row)},
                dram_gbps=float(traffic.get("dram_gbps", math.nan)),
                bytes_per_range=float(traffic.get("bytes_per_range", math.nan)),
                **{name: row[name] for name in same},
            )
        )
    return found


def _kernels(acc: Account, memory: Memory | None) -> list[dict[str, Any]]:
    shown = acc.kernels.head(TOP_KERNELS)
    shown = shown.assign(phases=shown["phases"].map(", ".join))
    if memory is not None and len(memory.kernels):
        keys = ["name", "shape", "kind"]
        rows = memory.kernels.drop(columns=["count", "total_ns"]).astype(dict.fromkeys(keys, str))
        shown = shown.astype(dict.fromkeys(keys, str)).merge(rows, on=keys, how="left")
    return [{str(k): v for k, v in row.items()} for row in shown.to_dict("records")]
