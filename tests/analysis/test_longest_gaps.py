"""What the launching thread did in a gap, as report.html tells it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from synthetic_export import Export, launches

from analysis import Trace, account
from analysis.html.longest import longest_gaps
from analysis.html.view import traced


def test_a_gap_is_told_as_what_its_thread_did(tmp_path: Path) -> None:
    export = launches("k")
    export.call(40_000, 44_000, 77, name="cudaMalloc_v3020")
    export.domain("harness")
    export.range("decode.step", 36_000, 72_000)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        gap, _ = sorted(longest_gaps(trace, account(trace), 15), key=lambda gap: gap.start_ns)
    assert gap.dur_ns == sum(gap.causes_ns.values()) == 26_000
    assert gap.host == (
        "host code 4.0 µs → cudaMalloc 4.0 µs → host code 12 µs → cudaLaunchKernel 5.0 µs → "
        "on its way to the device 1.0 µs (in decode.step)"
    )


def test_work_launched_before_its_gap_says_when(tmp_path: Path) -> None:
    export = Export()
    for number in range(2):
        export.call(1_000 * number, 1_000 * number + 500, number)
        export.kernel(10_000 + 30_000 * number, 20_000 + 30_000 * number, number)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        (gap,) = longest_gaps(trace, account(trace), 15)
    assert gap.host == "cudaLaunchKernel had returned 18 µs before"


def test_work_without_a_launch_call_says_so(tmp_path: Path) -> None:
    export = Export()
    export.kernel(0, 10, 1)
    export.kernel(50, 60, 2)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        (gap,) = longest_gaps(trace, account(trace), 15)
    assert gap.host == "no launch call in the trace"


def test_work_inside_a_graph_is_told_by_the_launch_of_its_graph(recorded: Callable[[str], Path]) -> None:
    """What a loop on the device runs has no correlation id of its own."""
    with Trace.open(recorded("h200_while")) as trace:
        acc = account(trace)
        gaps = longest_gaps(trace, acc, len(acc.gaps))
    inside = [gap.host for gap in gaps if "graph" in gap.causes_ns]
    assert len(inside) > 100 and all(re.match("cudaGraphLaunch had (returned|begun) ", one) for one in inside)


def test_within_a_graph_no_host_code_is_told_though_the_call_goes_on(tmp_path: Path) -> None:
    export = Export()
    export.call(0, 90_000, 1, name="cudaGraphLaunch_v10000")
    for number in range(2):
        export.kernel(10_000 + 20_000 * number, 20_000 + 20_000 * number, 1, node=number)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        (gap,) = longest_gaps(trace, account(trace), 15)
    assert gap.causes_ns == {"graph": 10_000} and gap.host == "cudaGraphLaunch had begun 20 µs before"


def test_calls_and_work_without_an_id_are_not_taken_for_each_other(tmp_path: Path) -> None:
    export = Export()
    export.call(20, 30, None)
    for start in (0, 50):
        export.kernel(start, start + 10, None)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        (gap,) = longest_gaps(trace, account(trace), 15)
    assert set(gap.causes_ns) == {"unknown"} and gap.host == "no launch call in the trace"


def test_gaps_begin_so_long_after_the_window(tmp_path: Path) -> None:
    export = launches("k")
    export.domain("harness")
    export.range("iter", 20_000, 110_000)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = longest_gaps(trace, account(trace), 15)
    assert [(gap.start_ns, gap.dur_ns) for gap in found] == [
        (16_000, 26_000), (52_000, 26_000), (0, 6_000), (88_000, 2_000)
    ]  # fmt: skip


def test_gaps_that_recur_have_their_share_of_all_idle_time(tmp_path: Path) -> None:
    """Ten kernels in turn, three times, in gaps of 10 µs: more patterns than are shown."""
    export = Export()
    for number in range(30):
        export.kernel(15_000 * number, 15_000 * number + 5_000, number, name=f"k{number % 10}")
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = traced(trace, account(trace), "t").patterns
    assert len(found) == 8 and {one.count for one in found} == {3}
    assert {one.share for one in found} == {30_000 / 290_000}
