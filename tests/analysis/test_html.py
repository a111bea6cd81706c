"""report.html: what it says, that a trace can't smuggle anything into it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_export import Export, launches

from analysis import Account, Trace, account, html
from analysis.html.breakdown import BUSY, Breakdown, difference
from analysis.memory import Memory
from analysis.memory.measure import memory

EVIL = "<script>alert(1)</script>"
WITHOUT_PROFILER = (
    "Without the profiler a token of fast takes 1.00 ms, one of slow 7.00 ms: fast is 7.0 times as fast."
)
HEADINGS = ["Where the time went, in ms per token", "The longest gaps", "Phases", "Kernels and copies"]


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text without markup."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.words = ""
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "h2":
            self.headings.append("")

    def handle_data(self, data: str) -> None:
        if self._open not in ("script", "style"):
            self.words += data
        if self._open == "h2":
            self.headings[-1] += data.strip()

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def page_of(path: Path) -> str:
    with Trace.open(path) as trace:
        return html.render(html.of_trace(trace, account(trace)))


def bar(label: str, busy: int, host: int, unprofiled_ms: float | None = None) -> Breakdown:
    parts = {BUSY: busy, "host": host}
    return Breakdown(label, parts, 10, True, 4000, 4000, unprofiled_ms)


def with_memory(acc: Account) -> Memory:
    """As if GPU metrics had been sampled: half of peak for every kernel."""
    kernels = acc.kernels[["name", "shape", "kind", "count", "total_ns"]].assign(
        dram_gbps=2400.0, dram_low_gbps=2300.0, dram_high_gbps=2500.0, dram_share=0.5, memory_pct=50.0,
        compute_pct=20.0, stall_ns=1e6, memory_class="latency-bound", host_starved=True, source="metrics",
    )  # fmt: skip
    time = np.arange(50.0)
    timeline = pd.DataFrame({"time_us": time, "dram_read_gbps": 1000 + time, "dram_write_gbps": 100.0})
    moved = {"dram_gbps": [1100.0], "dram_share": [0.23], "bytes_per_range": [333e6]}
    phases = pd.DataFrame({"domain": ["harness"], "name": ["decode.step"], **moved})
    return Memory(kernels, phases, timeline, 4800.0, 10_000)


def test_a_trace_becomes_a_page_with_everything_in_order(eager: tuple[Trace, Account]) -> None:
    report = html.of_trace(*eager)
    page = Page(html.render(report))
    assert page.headings[: len(HEADINGS)] == HEADINGS
    assert page.headings[-1] == "How this was measured"
    assert report.headline in page.words
    assert "NVIDIA H200" in page.words
    assert "--gpu-metrics-devices=0" in page.words, "how to record what is missing"
    assert page.count("h1") == 1 and page.count("script") == 1


def test_warnings_stand_below_the_headline_that_they_qualify(tmp_path: Path) -> None:
    export = Export()
    export.call(0, 5, 1)
    export.kernel(10, 20, 1)
    page = Page(page_of(export.write(tmp_path / "t.sqlite")))
    assert page.headings[0] == "Warnings"
    assert page.words.index("no NVTX ranges in the trace") < page.words.index("Where the time went")


def test_names_from_a_trace_are_text(tmp_path: Path) -> None:
    page = Page(page_of(launches(EVIL).write(tmp_path / f"{EVIL.replace('/', '')}.sqlite")))
    assert page.count("script") == 1, "the page's own"
    assert EVIL in page.words


def test_the_bar_of_a_trace_adds_up_to_its_window(tmp_path: Path) -> None:
    with Trace.open(launches("k").write(tmp_path / "t.sqlite")) as trace:
        acc = account(trace)
        (one,) = html.of_trace(trace, acc).bars
    assert not one.tokens and one.total_ns == acc.window_ns[1] - acc.window_ns[0]
    assert one.parts_ns[BUSY] == 30_000
    assert one.launch_calls == 2, "the first call lies before the window, which begins with its work"
    page = Page(html.render(html.Report("t", "h", [one])))
    widths = [float(str(attrs["width"])[:-1]) for tag, attrs in page.elements if tag == "rect"]
    assert sum(widths) == pytest.approx(100, abs=0.01)


def test_two_runs_are_explained_by_what_differs() -> None:
    slow = bar("slow", 10_000_000, 90_000_000, 7.0)
    fast = replace(bar("fast", 9_000_000, 1_000_000, 1.0), kernels=2000, launch_calls=10)
    assert difference(fast, slow) == [
        "A traced token of fast takes 1.00 ms, one of slow 10.0 ms. Of the 9.00 ms between them, 8.90 ms "
        "(99%) is less idle time (host 8.90 ms); the GPU's own work takes 0.10 ms less.",
        "fast launches 200 kernels a token with 1 launch call, slow launches 400 kernels a token with 400 "
        "launch calls.",
        WITHOUT_PROFILER,
    ]
    assert difference(fast, replace(slow, tokens=False)) == [WITHOUT_PROFILER], "no token to compare"
    unknown = replace(slow, unprofiled_ms=None)
    assert not any("Without the profiler" in one for one in difference(fast, unknown))
    assert difference(slow, slow)[0] == "A traced token of slow takes as long as one of slow, within 2%."


def test_a_difference_that_only_the_traces_have_is_not_explained() -> None:
    one = bar("one", 10_000_000, 90_000_000, 7.2)
    for ms, end in (
        (6.4, "other is 1.1 times as fast."),
        (7.2, "alike within 2%."),
        (6.9, "other is 4% faster."),
    ):
        other = bar("other", 9_000_000, 140_000_000, ms)
        first, *_, last = difference(other, one)
        assert (
            f"not so without the profiler, whose cost differs (+39% for one and +{14.9 / ms - 1:.0%}" in first
        )
        assert "less idle time" not in first and "the GPU's own work of one takes 0.10 ms more" in first
        assert last.endswith(end) and "as long" not in last


def test_a_difference_within_the_noise_is_not_explained() -> None:
    slow = replace(bar("slow", 10_000_000, 90_000_000, 7.2), unprofiled_interval=(6.0, 9.0))
    fast = replace(bar("fast", 9_000_000, 60_000_000, 5.0), unprofiled_interval=(2.0, 8.0))
    first, *_, last = difference(fast, slow)
    assert "That is not clearly so without the profiler" in first and "less idle time" not in first
    assert last.endswith("one of slow 7.20 ms: a difference within the noise.")
    clear = replace(fast, unprofiled_interval=(4.9, 5.1))
    assert "less idle time" in difference(clear, slow)[0]


def test_details_are_kept_as_those_of_published_runs(loop: tuple[Trace, Account]) -> None:
    """A page of several runs is made of what each of them kept."""
    (path,) = (Path(__file__).parents[2] / "results" / "h200" / "optimized").glob("*/detail.json")
    kept = {one["name"]: one["phases"] for one in json.loads(path.read_text())["kernels"]}
    assert {one["name"]: one["phases"] for one in html.traced(*loop, "loop").kernels} == kept


def test_whole_graphs_are_named_and_their_kernels_unknown(loop: tuple[Trace, Account]) -> None:
    found = html.traced(*loop, "loop", ms_per_token=0.2).bar
    assert (found.graphs, found.launch_calls, found.tokens) == (1, 1, False), "of one decode phase"
    shown = html.figures(found, {})
    assert shown["CUDA graphs in all, traced as one piece each"] == "1"
    assert not any("kernels" in what for what in shown)
    page = Page(html.render(html.of_trace(*loop)))
    assert "were traced as one piece each: how many kernels are inside is not known" in page.words
    assert "–inside 1 graph" in page.words


def test_a_row_has_one_unit(loop: tuple[Trace, Account]) -> None:
    """A loop of which no token is known stands beside a run with steps."""
    one = html.traced(*loop, "loop").bar
    steps = bar("steps", 10_000_000, 90_000_000, 7.0)
    steps = replace(steps, parts_ns=dict.fromkeys(one.parts_ns, 0) | steps.parts_ns)
    words = Page(html.render(html.Report("t", "h", [steps, one]))).words
    assert re.search(r"kernels per token\s*400\s*–inside 1 graph", words)
    assert re.search(r"launch calls per token\s*400\s*–1 graph launched", words)
    by_token = replace(one, units=99, tokens=True)
    words = Page(html.render(html.Report("t", "h", [steps, by_token]))).words
    assert "Where the time went, in ms per token" in words
    assert re.search(r"launch calls per token\s*400\s*0.0101 for 99 tokens", words)
    assert "with the gaps inside the graphs of loop counted as work. loop launches 1 graph for 99" in words
    assert html.figures(by_token, {})["launch calls for 99 tokens"] == "1"


def test_a_step_has_the_kernels_that_were_launched_in_it(tmp_path: Path) -> None:
    """Not those that the decode phase launches between its steps."""
    export = launches("k", 4)
    export.domain("harness")
    export.range("decode", 0, 150_000)
    for number in range(2):
        export.range("decode.step", 36_000 * number, 36_000 * (number + 1))
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = html.traced(trace, account(trace), "t")
    assert (found.bar.kernels, found.bar.units, found.bar.launch_calls) == (2, 2, 2)
    assert "a decode step takes 1 kernel " in found.headline
    assert found.bar.idle_share == 78 / 118 and html.figures(found.bar, {})["idle in decode"] == "66.1%"


def test_dram_over_a_whole_loop_is_called_that(loop: tuple[Trace, Account]) -> None:
    (path,) = (Path(__file__).parents[2] / "results" / "h200" / "optimized").glob("*/metrics.sqlite.xz")
    with Trace.open(path) as trace:
        measured = memory(trace, account(trace))
    page = Page(html.render(html.of_trace(*loop, measured)))
    assert "DRAM throughput over a decode phase" in page.headings
    assert "--gpu-metrics" not in page.words, "it has been recorded"
    assert "that of each kernel in roofline.png" in page.words


def test_both_bars_and_the_explanation_stand_on_the_page(
    eager: tuple[Trace, Account], recorded: Callable[[str], Path]
) -> None:
    with Trace.open(recorded("h200_sdpa")) as trace:
        other = html.traced(trace, account(trace), "sdpa")
    mine = html.traced(*eager, "eager", ms_per_token=6.84)
    page = Page(html.render(html.Report("sdpa", "h", [mine.bar, other.bar], [other])))
    (why,) = difference(other.bar, mine.bar)[:1]
    assert why in page.words
    assert "6.84 ms unprofiled" in page.words
    assert f"{mine.bar.kernels / mine.bar.units:,.0f}" in page.words


def test_memory_is_shown_where_it_was_measured(eager: tuple[Trace, Account]) -> None:
    trace, acc = eager
    page = Page(html.render(html.of_trace(trace, acc, with_memory(acc))))
    assert "DRAM throughput over a decode step" in page.headings
    assert page.count("circle") == min(len(acc.kernels), 30)
    assert (
        "2,400" in page.words
        and "2,300 to 2,500" in page.words
        and "23.0%" in page.words
        and "host-starved" in page.words
    )
    assert "--gpu-metrics-devices" not in page.words


def test_a_kernel_without_traffic_lies_on_the_edge_of_the_scatter(eager: tuple[Trace, Account]) -> None:
    measured = with_memory(eager[1])
    both = ["memory_pct", "compute_pct"]
    measured.kernels[both] = np.nan
    measured.kernels.loc[:2, both] = [[0.0, 0.0], [0.02, 0.1], [50.0, 20.0]]
    page = Page(html.render(html.of_trace(*eager, measured)))
    places = [(attrs["cx"], attrs["cy"]) for tag, attrs in page.elements if tag == "circle"]
    assert len(places) == 3 and len(set(places)) == 2, "two of them in the corner, for the axes begin there"
    assert "memory throughput, % of peak" in page.words and "compute throughput, % of peak" in page.words


def test_unknown_memory_is_told_by_its_note(eager: tuple[Trace, Account]) -> None:
    trace, acc = eager
    found = memory(trace, acc)
    page = Page(html.render(html.of_trace(trace, acc, found)))
    assert found.note and found.note in page.words
    assert page.count("circle") == 0


def test_a_run_without_a_trace_has_a_page(tmp_path: Path) -> None:
    run = html.Run("baseline", {"ms_per_token": 6.84, "ms_per_token.p25": 6.7, "ms_per_token.p75": 7.3})
    report = html.Report("baseline", "A token takes 6.84 ms", runs=[run], environment=[("GPU", "H200")])
    page = Page(html.write(tmp_path / "new" / "report.html", report).read_text())
    assert page.headings == ["This run", "How this was measured"]
    assert "6.70 to 7.30" in page.words


def hypothesis(label: str, held: bool | None, outcome: str, said: str) -> html.Hypothesis:
    rows = [html.Expectation(f"{label}.idle", "at most 15.0%", "20.6%", held, outcome)]
    return html.Hypothesis(label, f"{EVIL} pays", rows, said, "identical", f"{label}.html")


def failed_cells(page: Page) -> int:
    return sum(tag == "td" and attrs.get("class") == "failed" for tag, attrs in page.elements)


@pytest.mark.parametrize(
    ("held", "outcome"), [(True, "held"), (False, "DID NOT HOLD"), (None, "undecided: not measurable here")]
)
def test_a_hypothesis_stands_on_the_page_whatever_came_of_it(held: bool | None, outcome: str) -> None:
    one = hypothesis("graphs", held, outcome, outcome)
    page = Page(html.render(html.Report("t", "h", [bar("t", 1, 1)], hypotheses=[one])))
    assert page.headings[0] == "Hypothesis" and page.count("script") == 1, "claims are text"
    assert f"{EVIL} pays" in page.words
    assert f"graphs.idleat most 15.0%20.6%{outcome}" in page.words
    assert failed_cells(page) == (held is False)


def test_several_hypotheses_are_a_line_each() -> None:
    two = [
        hypothesis(EVIL, True, "held", "held"),
        hypothesis("int8", False, "DID NOT HOLD", "did not hold: int8.idle"),
    ]
    page = Page(html.render(html.Report("t", "h", hypotheses=two)))
    assert page.headings[0] == "Hypotheses" and page.count("script") == 1
    assert f"{EVIL}heldidentical" in page.words
    assert "int8did not hold: int8.idleidentical" in page.words
    assert ("a", {"href": "int8.html"}) in page.elements, "where the claim and the numbers are"
    assert failed_cells(page) == 1 and "at most 15.0%" not in page.words


def test_a_trace_without_gpu_work_says_so(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 1000)
    assert "No GPU work in the traced window" in page_of(export.write(tmp_path / "t.sqlite"))


def test_long_traces_have_short_pages(tmp_path: Path) -> None:
    page = page_of(launches("kernel_{}" + "x" * 500, count=3000).write(tmp_path / "t.sqlite"))
    assert len(page) < 1_000_000
    assert "15 of 2,999 gaps" in page and "30 most expensive of 3,000" in page
