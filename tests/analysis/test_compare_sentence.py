"""`python -m analysis compare`: the sentence on top doesn't hide what the numbers below it say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs_on_disk import write_run, write_trace
from test_compare_work import compared

NOISE_MS = np.tile([-0.02, -0.01, 0.0, 0.01, 0.02], 4)


@pytest.mark.parametrize(
    ("ms", "encode_ms", "expected"),
    [
        (
            (2.0, 1.9), (2, 4),  # tokens: 0.4 ms less; encoder: 2 ms more
            "b is 1.05x faster per token than a (2 → 1.9 ms); "
            "a whole iteration of b is 1.15x slower (10.5 → 12.1 ms), most of it in encode",
        ),
        (
            (2.0, 2.0), (4, 2),
            "Per token, no difference between b and a can be told: +0.0%, 95% interval +0.0% to +0.0%; "
            "a whole iteration of b is 1.19x faster (12.5 → 10.5 ms), most of it in encode",
        ),
        ((2.0, 1.0), (2, 2), "b is 2.0x faster per token than a (2 → 1 ms)"),
        ((2.0, 2.0), (2, 2), "Per token, no difference between b and a can be told: +0.0%, 95% interval "
         "+0.0% to +0.0%"),
    ],
)  # fmt: skip
def test_whole_iterations_are_named_where_their_tokens_tell_another_story(
    tmp_path: Path, ms: tuple[float, float], encode_ms: tuple[float, float], expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    a, b = (
        write_run(tmp_path / name / "1", NOISE_MS + one, encode_ms=encode)
        for name, one, encode in zip("ab", ms, encode_ms, strict=True)
    )
    assert compared(a, b, capsys=capsys)["sentence"] == expected


def test_no_phase_is_named_that_explains_less_than_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two ms of three lie in no phase."""
    a, b = (write_run(tmp_path / name / "1", [2.0] * 8, encode_ms=ms) for name, ms in (("a", 2), ("b", 3)))
    measured = (b / "measure.json").read_text()
    (b / "measure.json").write_text(measured.replace('"iter_ns": 11500000', '"iter_ns": 13500000'))
    sentence = compared(a, b, capsys=capsys)["sentence"]
    assert sentence.endswith("; a whole iteration of b is 1.29x slower (10.5 → 13.5 ms)")


@pytest.mark.parametrize(
    ("overheads", "said"),
    [
        ((1.289, 0.443), "the profiler slows a token by 129% in a and by 44% in b"),
        ((0.443, -0.004), "the profiler changes the time of a token by +44.3% in a, -0.4% in b"),
        ((None, 0.443), "the profiler doesn't slow both alike"),
    ],
)
def test_traces_that_say_the_opposite_are_a_warning_and_explain_nothing(
    tmp_path: Path, overheads: tuple[float | None, float], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for name, ms, host_ns, overhead in zip("ab", (6.0, 7.0), (90_000, 50_000), overheads, strict=True):
        metrics = {} if overhead is None else {"profiling_overhead": overhead}
        runs.append(write_run(tmp_path / name / "1", NOISE_MS + ms, metrics=metrics))
        write_trace(runs[-1] / "trace.sqlite", 4, host_ns, {"gemm": 10_000})
    found = compared(*runs, capsys=capsys)
    assert found["sentence"] == "b is 1.17x slower per token than a (6 → 7 ms)"
    assert found["warnings"] == [
        f"traced, b is faster, and without a profiler slower per token: {said}; "
        "causes of idle time from these traces don't explain the difference"
    ]
    assert not compared(runs[0], runs[0], capsys=capsys)["warnings"]
