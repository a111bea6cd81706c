"""The figures on memory traffic say what was found, or what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from memory_trace import STEPS, traced

from analysis import Trace, account
from analysis.html import charts
from analysis.memory import Memory, memory, memory_metrics
from analysis.plots.dram import dram
from analysis.plots.labels import numbered
from analysis.plots.roofline import roofline
from analysis.plots.style import Stamp

STAMP = Stamp("NVIDIA H200", "1a2b3c4", "2026-11-22", profiled=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    with Trace.open(traced(tmp_path_factory.mktemp("memory") / "trace.sqlite")) as trace:
        return memory(trace, account(trace))


def texts(figure: Figure) -> str:
    return " ".join(str(text.get_text()) for text in figure.findobj(Text))


def test_figures_say_what_was_found(measured: Memory) -> None:
    assert "memory-bound" in texts(roofline(measured, STAMP))
    share = memory_metrics(measured)["decode.dram_share"]
    assert f"{share:.0%} of the memory's speed" in texts(dram(measured, STAMP))
    assert f"the mean of {STEPS} laid onto one another" in texts(dram(measured, STAMP)).replace("\n", " ")


def test_a_page_tells_the_mean_and_the_highest_traffic(measured: Memory) -> None:
    table = pd.DataFrame(
        {"time_us": [5.0, 15, 25], "dram_read_gbps": [100.0, 200, 600], "dram_write_gbps": [100.0, 200, 0]}
    )
    area = charts.dram(replace(measured, timeline=table, peak_gbps=1_000.0))
    assert area is not None and area.finding == (
        "On average 400 GB/s over the decode step, 40% of the peak of 1,000 GB/s; at most 600 GB/s."
    )


def test_shares_of_kernel_time_are_of_all_of_it(measured: Memory) -> None:
    """As if nothing were known of a kernel that takes a third of the time."""
    kernels = measured.kernels[measured.kernels["memory_class"] != "unknown"].head(1)
    other = kernels.assign(name="other", memory_class="unknown", total_ns=kernels["total_ns"] // 2)
    both = pd.concat([kernels, other], ignore_index=True)
    bound = kernels["memory_class"].iloc[0]
    said = texts(roofline(replace(measured, kernels=both), STAMP)).replace("\n", " ")
    assert f"67% of the kernel time is {bound} (33% has no class): while these kernels run" in said
    assert f"Nearly all kernel time is {bound}: while" in texts(
        roofline(replace(measured, kernels=kernels), STAMP)
    ).replace("\n", " ")


def test_numbers_of_points_in_one_place_stand_beside_them() -> None:
    """Two points alike, one far from them, one where the two's label would stand first."""
    labels = numbered(np.array([[50.0, 50, 10], [51, 50, 4], [300, 50, 6], [80, 50, 3]]), 8)
    found = {label.text: label for label in labels}
    assert set(found) == {"1, 2", "3", "4"}
    assert (found["3"].right, found["3"].up) == (0, 0), "alone on its point"
    shared = found["1, 2"]
    assert shared.point == 0 and np.hypot(shared.right, shared.up) > 10, "off the larger of the two"
    assert shared.up > 8, "not on the fourth"


def test_figures_without_the_peak_leave_out_gigabytes(tmp_path: Path) -> None:
    with Trace.open(traced(tmp_path / "no_peak.sqlite", peak_bps=0)) as trace:
        measured = memory(trace, account(trace))
    assert "nan" not in texts(roofline(measured, STAMP))
    assert measured.note in texts(dram(measured, STAMP)).replace("\n", " ")


def test_figures_without_metrics_say_what_is_missing(tmp_path: Path) -> None:
    with Trace.open(traced(tmp_path / "plain.sqlite", metrics=False)) as trace:
        measured = memory(trace, account(trace))
    for figure in (roofline(measured, STAMP), dram(measured, STAMP)):
        assert "--gpu-metrics-devices" in texts(figure).replace("\n", " ")


def test_where_the_device_repeats_the_steps_the_decode_phase_is_drawn() -> None:
    (path,) = (Path(__file__).parents[2] / "results" / "h200" / "optimized").glob("*/metrics.sqlite.xz")
    with Trace.open(path) as trace:
        measured = memory(trace, account(trace))
    values = memory_metrics(measured)
    assert "decode.bytes_per_step" not in values
    shown = texts(dram(measured, STAMP)).replace("\n", " ")
    assert f"A decode phase uses {values['decode.dram_share']:.0%} of the memory's speed" in shown
    assert f"its {values['decode.bytes_per_phase'] / 1e9:.1f} GB would take" in shown
    assert "laid onto one another" not in shown, "there is one"
    assert "gaps.png" not in shown, "which has the loop as one piece"
