"""Memory traffic of phases: straight from the samples inside their time on the device, without regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.host import match_launches
from analysis.accounting.phases import DECODE, DECODE_STEP, HARNESS_DOMAIN
from analysis.accounting.stretches import Stretches
from analysis.engine.intervals import Ints, latest_end_so_far
from analysis.memory.deconvolve import MIN_SAMPLES
from analysis.memory.roofline import stall_ns
from analysis.memory.samples import DRAM, Floats, Samples
from analysis.reading.trace import Trace

_COVERED = 0.95  # a range counts if samples cover that much of it
_ALIKE = 0.1  # steps within ±10% of the median duration are folded onto one another
_BINS = (20, 160)
TIMELINE = ["time_us", "dram_read_gbps", "dram_write_gbps", "busy_share", "samples"]
PHASES = ["domain", "name", "dram_gbps", "dram_share", "bytes_per_range", "samples", "stall_ns"]


@dataclass(frozen=True)
class Traffic:
    """The samples of a device as running totals over time, so that any interval costs two look-ups.

    edges_ns [2·samples], and at each edge the integral since the first, in percent·ns: read, write, and
    covered (ns that samples cover at all).
    """

    edges_ns: Ints
    totals: dict[str, Floats]

    @classmethod
    def of(cls, samples: Samples, offset_ns: int) -> Traffic:
        start, end = samples.start_ns - offset_ns, samples.end_ns - offset_ns
        edges = np.stack([start, end], axis=1).ravel()
        length = (end - start).astype(float)
        totals = {name: _running(samples.values[name] * length) for name in DRAM}
        return cls(edges, totals | {"covered": _running(length)})

    def within(self, name: str, start: Ints, end: Ints) -> Floats:
        """The integral of a metric over [start, end), percent·ns; of `covered`, ns. Any shape."""
        total = self.totals[name]
        return np.interp(end, self.edges_ns, total) - np.interp(start, self.edges_ns, total)


def _running(amount: Floats) -> Floats:
    """Running total at the start and the end of each sample."""
    after = np.cumsum(amount)
    return np.stack([after - amount, after], axis=1).ravel()


def device_ranges(trace: Trace, acc: Account) -> pd.DataFrame:
    """Each range's time on each device: from the first start to the last end of the work launched in it.

    Columns: domain, name, device, start_ns, end_ns. Ranges without work have no row.
    """
    work, api = trace.work, trace.api
    inside = (trace.ranges["start_ns"] < acc.window_ns[1]) & (trace.ranges["end_ns"] > acc.window_ns[0])
    ranges = trace.ranges[inside].reset_index(drop=True)
    if ranges.empty or work.empty:
        return pd.DataFrame(columns=["domain", "name", "device", "start_ns", "end_ns"])
    parts = Stretches.of(ranges, np.arange(len(ranges)))
    launch = match_launches(work, api)
    rows = np.flatnonzero(launch >= 0)
    spans = pd.DataFrame({name: work[name].to_numpy()[rows] for name in ("device", "start_ns", "end_ns")})
    by = [parts.of_work(api, launch[rows]), spans["device"]]
    spans = spans.groupby(by).agg(start_ns=("start_ns", "min"), end_ns=("end_ns", "max"))
    spans = spans.rename_axis(["stretch", "device"]).reset_index()
    # A stretch without a range of its own has no pair, and so drops out.
    pairs = pd.DataFrame({"stretch": parts.stretch, "range": parts.phase})
    paired = spans.merge(pairs, on="stretch").groupby(["range", "device"], as_index=False)
    spans = paired.agg(start_ns=("start_ns", "min"), end_ns=("end_ns", "max"))
    named = ranges.loc[spans["range"], ["domain", "name"]].reset_index(drop=True)
    return pd.concat([named, spans.drop(columns="range")], axis=1)


def phase_table(
    spans: pd.DataFrame, acc: Account, traffic: dict[int, Traffic], period_ns: int, peak_gbps: float
) -> pd.DataFrame:
    """Traffic per (domain, name): means over the ranges' time on the device, idle time included.

    Columns: domain, name, dram_gbps, dram_share (of the peak) and bytes_per_range (NaN for too few samples;
    all three of a device, on average over several), samples, stall_ns (busy time of the whole phase, of all
    devices, beyond its bytes at peak speed). Samples are smeared over their period: what lies within one of a
    range's borders may count for its neighbour.
    """
    parts = []
    for device, mine in spans[spans["device"].isin(list(traffic))].groupby("device"):
        seen = traffic[int(str(device))]
        start, end = mine["start_ns"].to_numpy(), mine["end_ns"].to_numpy()
        percent_ns = sum(seen.within(name, start, end) for name in DRAM)
        covered = seen.within("covered", start, end)
        part = mine.assign(percent_ns=percent_ns, covered_ns=covered)
        parts.append(part[covered >= _COVERED * (end - start)])
    if not parts:
        return pd.DataFrame(columns=PHASES)
    both = pd.concat(parts).groupby(["domain", "name"], observed=True, as_index=False)
    table = both.agg(
        percent_ns=("percent_ns", "sum"),
        covered_ns=("covered_ns", "sum"),
        ranges=("percent_ns", "size"),
        devices=("device", "nunique"),
    )
    table["dram_share"] = table["percent_ns"] / 100 / table["covered_ns"]
    table["dram_gbps"] = table["dram_share"] * peak_gbps
    table["bytes_per_range"] = table["dram_gbps"] * table["covered_ns"] / table["ranges"]
    table["samples"] = (table["covered_ns"] / period_ns).round().astype(np.int64)
    table.loc[table["samples"] < MIN_SAMPLES, ["dram_gbps", "dram_share", "bytes_per_range"]] = np.nan
    busy = acc.phases.set_index(["domain", "name"])
    key = pd.MultiIndex.from_frame(table[["domain", "name"]].astype(str))
    whole = busy.set_axis(pd.MultiIndex.from_tuples([(str(a), str(b)) for a, b in busy.index])).reindex(key)
    of_all = (table["bytes_per_range"] * table["devices"]).to_numpy()
    all_bytes = of_all * whole["count"].to_numpy(dtype=float)
    table["stall_ns"] = stall_ns(whole["busy_ns"].to_numpy(dtype=float), all_bytes, peak_gbps)
    return table.reindex(columns=PHASES)


def timeline(
    spans: pd.DataFrame, trace: Trace, traffic: dict[int, Traffic], period_ns: int, peak_gbps: float
) -> pd.DataFrame:
    """A typical decode step, or decode phase where the device repeats the steps by itself: all of about the
    median duration, stretched to it and laid onto one another.

    Columns: time_us since its first kernel (middle of the bin), dram_read_gbps, dram_write_gbps, busy_share
    (of the bin's time), samples (behind the bin). Steps of other programs: their most frequent range. A bin
    is half a sampling period; what happens faster than a period is smoothed over it.
    """
    spans = spans[spans["device"].isin(list(traffic))]
    known = [(spans["domain"] == HARNESS_DOMAIN) & (spans["name"] == name) for name in (DECODE_STEP, DECODE)]
    if len(spans):
        known.append(spans["name"] == spans["name"].astype(str).mode()[0])
    steps = next((spans[ours] for ours in known if ours.any()), spans.iloc[:0])
    if steps.empty:
        return pd.DataFrame(columns=TIMELINE)
    duration = steps["end_ns"] - steps["start_ns"]
    median = float(duration.median())
    steps = steps[(duration - median).abs() <= _ALIKE * median]
    bins = int(np.clip(round(2 * median / period_ns), *_BINS))
    shares = np.linspace(0, 1, bins + 1)
    sums = {name: np.zeros(bins) for name in (*DRAM, "covered", "busy", "length")}
    for device, mine in steps.groupby("device"):
        start = mine["start_ns"].to_numpy()[:, None]
        length = (mine["end_ns"] - mine["start_ns"]).to_numpy()[:, None]
        edges = (start + shares * length).astype(np.int64)
        seen = traffic[int(str(device))]
        for name in seen.totals:
            sums[name] += seen.within(name, edges[:, :-1], edges[:, 1:]).sum(axis=0)
        busy = _busy_until(trace.work[trace.work["device"] == device], edges)
        sums["busy"] += np.diff(busy, axis=1).sum(axis=0)
        sums["length"] += np.diff(edges, axis=1).sum(axis=0)
    covered = np.where(sums["covered"] > 0, sums["covered"], np.nan)
    return pd.DataFrame(
        {
            "time_us": (shares[:-1] + shares[1:]) / 2 * median / 1e3,
            "dram_read_gbps": sums["dram_read_pct"] / covered / 100 * peak_gbps,
            "dram_write_gbps": sums["dram_write_pct"] / covered / 100 * peak_gbps,
            "busy_share": sums["busy"] / sums["length"],
            "samples": (sums["covered"] / period_ns).round(1),
        }
    )


def drawn(phases: pd.DataFrame) -> tuple[str, pd.Series | None]:
    """What `timeline` is of, and its row of `phase_table`'s; None for another program's range."""
    ours = phases[phases["domain"] == HARNESS_DOMAIN]
    for name, called in ((DECODE_STEP, "decode step"), (DECODE, "decode phase")):
        for _, row in ours[ours["name"] == name].iterrows():
            return called, row
    return "typical step", None


def _busy_until(work: pd.DataFrame, time_ns: Ints) -> Floats:
    """How long a device had been busy by a time, ns; `work` is one device's, sorted by start."""
    start, end = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    latest = end[latest_end_so_far(np.zeros(len(end), dtype=np.int64), end)]
    fresh = np.maximum(start, np.append(start[:1], latest[:-1]))  # what no earlier work covers begins here
    new = latest > fresh
    amount = (latest - fresh)[new]
    edges = np.stack([fresh[new], latest[new]], axis=1).ravel()
    return np.interp(time_ns, edges, _running(amount.astype(float)))
