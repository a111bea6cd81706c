"""The sentences on the figures are true of the numbers that are drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from memory_trace import traced
from synthetic_export import Export

from analysis import Trace, account, plots
from analysis.memory import memory

STAMP = plots.Stamp("NVIDIA H200", "1a2b3c4", "2026-11-22", profiled=True)


def said(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


@pytest.mark.parametrize(
    ("gaps_us", "p90", "idle", "half"),
    [
        ([10] * 8 + [100], "28 µs", "180 µs", "100 µs"),
        ([10] * 8 + [60], "20 µs", "140 µs", "10 µs"),
        ([10] * 8, "10 µs", "80.0 µs", "10 µs"),
    ],
)
def test_half_of_the_idle_time_is_in_gaps_of_up_to_that_length(
    gaps_us: list[int], p90: str, idle: str, half: str, tmp_path: Path
) -> None:
    export, now = Export(), 0
    for number, gap in enumerate([0, *gaps_us]):
        now += 1_000 * gap
        export.kernel(now, now + 5_000, number)
        now += 5_000
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = said(plots.gaps(account(trace), STAMP))
    assert (
        f"median 10 µs, 90th percentile {p90}; {idle} idle in all, half of it in gaps of up to {half}"
        in found
    )


@pytest.mark.parametrize(
    ("second", "label"), [(0.5, "0.50 (4.0× faster)"), (8.0, "8.00 (4.0× slower)"), (2.05, "2.05")]
)
def test_the_ladder_tells_how_much_faster_or_slower_than_its_first_row(second: float, label: str) -> None:
    times = [2.0, second]
    columns = {name: [0.5, 0.5] for name in ("idle_share", "kernels_per_token", "encode_ms")}
    rows = pd.DataFrame({"scope": ["a", "b"], "ms_per_token": times, "p25": times, "p75": times, **columns})
    (bars,) = (
        axes for axes in plots.ladder(rows, STAMP).axes if axes.get_title(loc="left") == "ms per token"
    )
    assert [" ".join(text.get_text().split()) for text in bars.texts] == ["2.00", label]


def test_a_phase_has_its_share_of_the_whole_iteration() -> None:
    phases = {"encode": [25_000_000], "decode": [60_000_000], "decode.step": [20_000_000] * 3}
    figure = plots.latency([{"iter_ns": 100_000_000, "phases": phases}], STAMP)
    assert "One token takes 20.0 ms, an iteration of 3 tokens 100 ms: 60% of it in decode" in said(figure)


def test_the_used_part_of_the_peak_is_weighted_by_the_time_of_the_kernels(tmp_path: Path) -> None:
    with Trace.open(traced(tmp_path / "t.sqlite")) as trace:
        measured = memory(trace, account(trace))
    kernels = measured.kernels.head(2).assign(total_ns=[3_000_000, 1_000_000], dram_share=[0.8, 0.4])
    figure = plots.memory_figures(replace(measured, kernels=kernels), STAMP)["roofline"]
    assert "while kernels run, DRAM is at 70% of its peak" in said(figure)
