"""Figures say their finding, carry their stamp, and nothing in them is cut off."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from runs_on_disk import write_trace
from synthetic_export import Export

from analysis import Account, Trace, account, html, palette, plots
from analysis.accounting.causes import CAUSES
from analysis.headline import focus, headline
from analysis.palette import CAUSE_COLOUR, CAUSE_LABEL
from analysis.steps import typical_step

STAMP = plots.Stamp("NVIDIA H200", "1a2b3c4", "2026-11-22", profiled=True)


def iterations(count: int, tokens: int) -> list[dict[str, object]]:
    draw = np.random.default_rng(0)
    timed = []
    for _ in range(count):
        steps = (6.9e6 + draw.gamma(2, 8e4, tokens)).astype(int).tolist()
        phases = {
            "features": [2_200_000],
            "encode": [5_000_000],
            "decode": [sum(steps)],
            "decode.step": steps,
        }
        timed.append({"iter_ns": sum(steps) + 20_000_000, "phases": phases})
    return timed


def without_steps(count: int) -> list[dict[str, object]]:
    """As where the device repeats the steps by itself."""
    timed = iterations(count, 100)
    for one in timed:
        phases = dict(one["phases"])  # type: ignore[call-overload]
        del phases["decode.step"]
        one |= {"phases": phases, "counts": {"tokens": 100}}
    return timed


def scopes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "scope": ["baseline", "cuda_graphs", "a_scope_with_quite_a_long_name"],
            "ms_per_token": [6.9, 0.96, 1.2],
            "p25": [6.8, 0.95, np.nan],
            "p75": [7.1, 0.97, np.nan],
            "idle_share": [0.92, 0.12, np.nan],
            "kernels_per_token": [336, 250, np.nan],
            "encode_ms": [5.0, 4.1, 4.1],
        }
    )


def scopes_by_cause() -> pd.DataFrame:
    """The second has no causes, as of a run recorded before there were any."""
    shares = {"host_share": [0.7, np.nan, np.nan], "launch_share": [0.22, np.nan, np.nan]}
    return scopes().assign(**shares, sync_share=[0.0, np.nan, np.nan])


FIGURES: dict[str, Callable[[Trace, Account], Figure]] = {
    "gaps": lambda trace, acc: plots.gaps(acc, STAMP),
    "timeline": lambda trace, acc: plots.timeline(trace, acc, STAMP),
    "latency": lambda trace, acc: plots.latency(iterations(5, 100), STAMP),
    "latency, a loop on the device": lambda trace, acc: plots.latency(without_steps(15), STAMP),
    "latency, one step": lambda trace, acc: plots.latency(iterations(1, 1), STAMP),
    "ladder": lambda trace, acc: plots.ladder(scopes(), STAMP),
    "ladder by cause": lambda trace, acc: plots.ladder(scopes_by_cause(), STAMP),
    "ladder, one scope": lambda trace, acc: plots.ladder(scopes().head(1), STAMP),
}


def texts(figure: Figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(Text) if artist.get_visible()]


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.parametrize("program", ["eager", "graph", "loop"])
def test_no_text_is_cut_off(kind: str, program: str, request: pytest.FixtureRequest) -> None:
    assert_whole(FIGURES[kind](*request.getfixturevalue(program)))


def test_the_name_of_the_first_kernel_is_not_cut_off(tmp_path: Path) -> None:
    names = [f"nvjet_sm90_hsh_64x8_64x16_{number}" for number in range(8)]
    with Trace.open(write_trace(tmp_path / "t.sqlite", 1, 0, dict.fromkeys(names, 100_000))) as trace:
        figure = plots.timeline(trace, account(trace), STAMP)
    shown = [text for text in texts(figure) if text.startswith("nvjet")]
    assert len(shown) == 8 and len(shown[0]) < len(shown[1]) == 22
    assert_whole(figure)


def assert_whole(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = figure.bbox
    boxes = [figure.get_tightbbox(canvas.get_renderer()).transformed(figure.dpi_scale_trans)]
    # Slanted kernel names take no part in the layout, so the box above leaves them out.
    boxes += [text.get_window_extent() for text in figure.findobj(Text) if not text.get_in_layout()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= pixels.x1 and box.y1 <= pixels.y1


def test_titles_state_the_finding_in_numbers(eager: tuple[Trace, Account]) -> None:
    trace, acc = eager
    assert any("The GPU idles 92% of the decode steps" in text for text in texts(plots.gaps(acc, STAMP)))
    assert any(text.startswith("One decode step: ") for text in texts(plots.timeline(trace, acc, STAMP)))
    assert any("7.2× faster than baseline (6.90 ms)" in text for text in texts(plots.ladder(scopes(), STAMP)))
    assert any("One token takes 7.0" in text for text in texts(plots.latency(iterations(5, 100), STAMP)))


def test_what_was_not_captured_is_said_and_not_drawn_as_zero() -> None:
    assert texts(plots.ladder(scopes(), STAMP)).count("not captured") == 2


def test_a_graph_that_was_traced_as_one_piece_is_no_graph_without_gaps() -> None:
    rows = scopes().assign(kernels_per_token=[336, np.nan, np.nan])
    shown = texts(plots.ladder(rows, STAMP))
    assert "12% (whole graph)" in shown and any("gaps inside count as busy" in text for text in shown)
    assert "12%" in texts(plots.ladder(scopes(), STAMP))


def test_where_the_device_repeats_the_steps_an_iteration_is_drawn(loop: tuple[Trace, Account]) -> None:
    shown = " ".join(texts(plots.timeline(*loop, STAMP)))
    said = r"One iteration: [\d.]+ ms for 15 kernels and 3 CUDA graphs, the GPU is idle \d+% of it"
    assert re.search(said, shown.replace("\n", " ")) and "step" not in shown


def bars(axes: Axes, colour: str) -> list[Rectangle]:
    found = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [bar for bar in found if to_hex(bar.get_facecolor()) == colour.lower()]


@pytest.mark.parametrize("chunk", [7, 1_000_000])
def test_idle_time_is_split_exactly_by_length_and_cause(
    chunk: int, eager: tuple[Trace, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.plots.gap_histogram._GAPS", chunk)
    _, acc = eager
    shares = plots.gaps(acc, STAMP).axes[0]
    gaps = focus(acc).gaps
    parts = acc.segments(gaps.index.to_numpy())
    length = acc.gaps["dur_ns"].to_numpy()[parts["gap"]]
    drawn = 0
    for cause in CAUSES:
        for bar in bars(shares, CAUSE_COLOUR[cause]):
            left, right = bar.get_x(), bar.get_x() + bar.get_width()
            inside = (parts["cause"] == cause) & (length >= left) & (length < right)
            expected = parts["dur_ns"][inside].sum() / parts["dur_ns"].sum()
            assert bar.get_height() == pytest.approx(expected, abs=1e-12)
            drawn += bar.get_height()
    assert drawn == pytest.approx(1)


def test_a_gap_is_shaded_piece_by_piece_in_the_timeline(eager: tuple[Trace, Account]) -> None:
    trace, acc = eager
    view = typical_step(trace, acc)
    assert view is not None and len(view.parts) > len(view.gaps)
    assert view.parts["dur_ns"].sum() == view.gaps["dur_ns"].sum()
    labels = texts(plots.timeline(trace, acc, STAMP))
    assert all(f"gap: {CAUSE_LABEL[cause]}" in labels for cause in view.parts["cause"].unique())


def test_the_step_that_is_drawn_is_the_one_of_median_duration(tmp_path: Path) -> None:
    """Steps of 30, 90, 50, 70 and 10 µs; the first of them, the shortest and the longest are not typical."""
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 500_000)
    for number, length_us in enumerate((30, 90, 50, 70, 10)):
        start = 100_000 * number
        export.range("decode.step", start, start + 1_000 * length_us)
        export.call(start, start + 1_000, number)
        export.kernel(start + 2_000, start + 4_000, number)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        view = typical_step(trace, account(trace))
    assert view is not None and (view.among, view.start_ns, view.span_ns) == (5, 200_000, 50_000)


def test_of_several_gpus_the_busiest_is_drawn_and_averages_are_told(tmp_path: Path) -> None:
    """A step of 100 µs: GPU 0 works 30 and then 10 µs, GPU 3 10 µs."""
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 100_000)
    export.range("decode.step", 1, 99_999)
    for number, (start, end, device) in enumerate([(20, 50, 0), (30, 40, 3), (90, 100, 0)]):
        export.call(1_000 * start - 5_000, 1_000 * start - 1_000, number)
        export.kernel(1_000 * start, 1_000 * end, number, device=device)
    export.call(95_000, 98_000, 9)
    export.kernel(99_000, 100_000, 9, device=3)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        acc = account(trace)
        drawn = texts(plots.timeline(trace, acc, STAMP))
        told = headline(acc)
        report = html.of_trace(trace, acc)
    assert "One decode step: 100.0 µs for 2 kernels on GPU 0, which is idle 60% of it" in drawn
    assert any("Of 2 GPUs only the busiest is drawn." in text for text in drawn)
    assert told.startswith("The 2 GPUs idle 74% ")
    assert told.endswith("4 kernels and 0.10 ms while traced, the average of its 2 GPUs")
    assert report.figures["ms per token, traced, average of 2 GPUs"] == "0.10"
    assert report.bars[0].ms() == pytest.approx(0.1)
    page = html.render(report)
    assert '<th class="n">GPU</th>' in page and '<td class="n">3</td>' in page


def test_the_ladder_draws_idle_time_by_cause_where_it_is_known() -> None:
    figure = plots.ladder(scopes_by_cause(), STAMP)
    idle = next(axes for axes in figure.axes if axes.get_title(loc="left") == "GPU idle in decode")
    assert [bar.get_width() for bar in bars(idle, CAUSE_COLOUR["host"])] == [0.7, 0, 0]
    launch = bars(idle, CAUSE_COLOUR["launch"])[0]
    assert (launch.get_x(), launch.get_width()) == pytest.approx((0.7, 0.22))
    (unknown,) = [bar for bar in bars(idle, palette.FAINT) if bar.get_width() > 0]
    assert unknown.get_width() == 0.12
    assert CAUSE_LABEL["launch"] in texts(figure) and CAUSE_LABEL["sync"] not in texts(figure)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}  # fmt: skip


def lab(colour: str, vision: str) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour as it is seen."""
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ seen
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_a_loop_on_the_device_has_its_phases_drawn() -> None:
    timed = without_steps(6)
    figure = plots.latency(timed, STAMP)
    shown = texts(figure)
    assert any(text.startswith("One token takes 7.0") and "of 100 tokens" in text for text in shown)
    titles = [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes]
    assert titles == ["per token", "features", "encode", "decode", ""], "prefill was not timed"
    (dots,) = (line for line in figure.axes[3].lines if line.get_marker() == ".")
    assert np.allclose(dots.get_ydata(), [sum(one["phases"]["decode"]) / 1e6 for one in timed])  # type: ignore[index]
    assert any("decode 7" in text and text.endswith(" ms") for text in shown)


def test_the_ladder_calls_no_noise_a_difference() -> None:
    """The intervals of the first two overlap."""
    rows = scopes().assign(ms_per_token=[6.9, 5.0, 1.2], low=[4.0, 3.0, 1.1], high=[9.0, 8.0, 1.3])
    shown = texts(plots.ladder(rows, STAMP))
    assert "5.00  (within noise)" in shown and "1.20  (5.8× faster)" in shown
    assert any(
        text.startswith("cuda_graphs: 5.00 ms per token against")
        for text in texts(plots.ladder(rows.head(2), STAMP))
    )


@pytest.mark.parametrize("low, told", [([4.0, np.nan, 1.1], True), ([4.0, 3.0, 1.1], False)])
def test_the_ladder_says_that_iterations_are_few(low: list[float], told: bool) -> None:
    rows = scopes().assign(low=low, high=[9.0, np.nan if told else 8.0, 1.3])
    (subtitle,) = (text for text in texts(plots.ladder(rows, STAMP)) if "without a profiler" in text)
    assert told == ("Fewer than 6 iterations" in subtitle.replace("\n", " "))


def test_the_ladders_footer_leaves_it_to_the_subtitle_what_was_profiled() -> None:
    labels = texts(plots.ladder(scopes_by_cause(), STAMP))
    assert "NVIDIA H200 · commit 1a2b3c4 · 2026-11-22" in labels
    assert any("without a profiler" in one and "from the trace" in one for one in labels)


@pytest.mark.parametrize("vision", VISION)
def test_causes_are_told_apart_by_colour_with_any_colour_vision(vision: str) -> None:
    assert list(CAUSE_COLOUR) == list(CAUSE_LABEL) == list(CAUSES)
    for one, other in combinations(CAUSE_COLOUR.values(), 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) >= 18


@pytest.mark.parametrize(
    ("stamp", "footer"),
    [
        (STAMP, "NVIDIA H200 · commit 1a2b3c4 · 2026-11-22 · measured under a profiler"),
        (
            plots.Stamp("laptop", "", "2026-11-23", profiled=False),
            "laptop · 2026-11-23 · measured without a profiler",
        ),
        (
            plots.Stamp("laptop", "abc", "2026-11-23", True, "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4"),
            "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4 · measured under a profiler · analysed on laptop · "
            "commit abc · 2026-11-23",
        ),
    ],
)
def test_figures_carry_their_stamp(stamp: plots.Stamp, footer: str, eager: tuple[Trace, Account]) -> None:
    trace, acc = eager
    figures = [
        plots.gaps(acc, stamp),
        plots.timeline(trace, acc, stamp),
        plots.latency(iterations(2, 5), stamp),
    ]
    assert all(footer in texts(figure) for figure in figures)


def test_figures_of_traces_with_little_in_them_say_so(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 1000)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        acc = account(trace)
        figures = [
            plots.gaps(acc, STAMP),
            plots.timeline(trace, acc, STAMP),
            plots.latency([], STAMP),
            plots.ladder(scopes().head(0), STAMP),
        ]
    for stem, figure in enumerate(figures):
        assert all(file.stat().st_size > 0 for file in plots.save(figure, tmp_path, str(stem)))


def test_a_program_without_ranges_still_has_a_timeline(tmp_path: Path) -> None:
    export = Export()
    for correlation in range(100):
        export.call(100 * correlation, 100 * correlation + 10, correlation)
        export.kernel(100 * correlation + 20, 100 * correlation + 50, correlation, stream=correlation % 3)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = texts(plots.timeline(trace, account(trace), STAMP))
    assert any(text.startswith("The middle of the trace") for text in found)


def test_drawing_and_saving_leave_matplotlibs_settings_alone(
    graph: tuple[Trace, Account], tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    plots.save(plots.gaps(graph[1], STAMP), tmp_path, "gaps")
    assert dict(matplotlib.rcParams) == before
