"""`python -m analysis compare`: what doesn't hold the same work is not compared as if it did."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from analysis_cli import analysis
from runs_on_disk import write_run, write_trace
from synthetic_export import Export

from analysis.__main__ import main
from analysis.comparison import subjects

STEP = {"host_ns": 10_000, "kernels": {"gemm": 10_000}}
US = 1_000


def compared(*paths: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["compare", *map(str, paths), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    return dict(found)


def printed(*paths: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["compare", *map(str, paths)]) == 0
    return capsys.readouterr().out


def write_loop(path: Path, busy_ns: int, *, whole: bool = True) -> Path:
    """An iteration whose decode phase is one launch, traced as one piece: no ranges of its steps."""
    export = Export()
    export.domain("harness", 1)
    export.call(0, 2 * US, 1)
    export.kernel(5 * US, 15 * US, 1)
    export.range("encode", 0, 3 * US)
    export.call(20 * US, 22 * US, 2)
    launch = export.graph if whole else export.kernel
    launch(25 * US, 25 * US + busy_ns, 2)
    export.range("decode", 18 * US, 26 * US + busy_ns)
    export.range("iter", 0, 27 * US + busy_ns)
    return export.write(path)


def write_steps(path: Path, steps: int, iterations: int = 1) -> Path:
    """Iterations that encode, then decode step by step."""
    export, now, work = Export(), 0, 0
    export.domain("harness", 1)
    for _ in range(iterations):
        begin = now
        for phase in ["encode"] + ["decode.step"] * steps:
            work += 1
            export.call(now, now + 2 * US, work)
            export.kernel(now + 5 * US, now + 15 * US, work)
            export.range(phase, now, now + 16 * US)
            now += 20 * US
        export.range("decode", begin + 20 * US, now)
        export.range("iter", begin, now + US)
        now += 2 * US
    return export.write(path)


def run(folder: Path, ms: float, trace: Path, *, steps: int, tokens: int = 0) -> Path:
    """A run of ten iterations of so many steps, with this trace; tokens: that an iteration counted."""
    write_run(folder, [ms] * 10, tokens=steps)
    measured = json.loads((folder / "measure.json").read_text())
    for one in measured["iterations"]:
        one["counts"] = {"tokens": tokens or steps}
        if not steps:
            one["phases"] = {"encode": [US], "decode": [round(ms * 1e6) * tokens]}
    (folder / "measure.json").write_text(json.dumps(measured))
    trace.rename(folder / "trace.sqlite")
    return folder


def test_a_loop_in_one_launch_and_a_few_steps_are_not_compared_by_the_iteration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop, cut = write_loop(tmp_path / "loop.sqlite", 2_000 * US), write_steps(tmp_path / "cut.sqlite", 8)
    found = compared(loop, cut, capsys=capsys)
    assert found["sentence"] == (
        "These traces of loop and cut don't say which is faster: "
        "loop has no ranges of single decode steps, cut has 8 decode steps in an iteration"
    )
    (warning,) = [one for one in found["warnings"] if "don't compare: loop has no" in one]
    assert "compare the run folders" in warning
    trace = found["trace"]
    assert trace["unit"] is None and trace["total"] is None and not trace["parts"] and not trace["kernels"]
    assert [one["metric"] for one in trace["phases"]] == ["harness:encode"]
    left_out = {one["phase"]: one["why"] for one in trace["left_out"]}
    assert set(left_out) == {"harness:iter", "harness:decode", "harness:decode.step"}
    assert left_out["harness:decode.step"] == "only in cut"
    text = printed(loop, cut, capsys=capsys)
    assert "left out: harness:iter, harness:decode (see above)" in text
    assert "faster per" not in text and "Time per" not in text


def test_runs_of_which_one_trace_was_cut_are_compared_by_their_latencies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = run(tmp_path / "loop" / "1", 0.2, write_loop(tmp_path / "a", 2_000 * US), steps=0, tokens=99)
    cut = run(tmp_path / "steps" / "1", 1.0, write_steps(tmp_path / "b", 8), steps=99)
    found = compared(loop, cut, capsys=capsys)
    assert found["sentence"] == "steps is 5.0x slower per token than loop (0.2 → 1 ms)"
    assert found["trace"]["total"] is None
    assert (
        "steps: its trace has only 8 of the 99 decode steps of an iteration; traced times are of these"
        in (found["warnings"])
    )
    assert any("the latencies are of whole iterations" in one for one in found["warnings"])


def test_whole_iterations_compare_even_where_one_has_no_ranges_of_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = run(
        tmp_path / "loop" / "1", 0.2, write_loop(tmp_path / "a", 900 * US, whole=False), steps=0, tokens=99
    )
    steps = run(tmp_path / "steps" / "1", 1.0, write_steps(tmp_path / "b", 99), steps=99)
    found = compared(loop, steps, capsys=capsys)
    trace = found["trace"]
    assert trace["unit"] == "iteration" and trace["total"]["delta"]["value"] > 0
    assert {"harness:iter", "harness:decode"} <= {one["metric"] for one in trace["phases"]}
    assert not found["warnings"]
    assert [one["phase"] for one in trace["left_out"]] == ["harness:decode.step"]


def test_a_trace_that_holds_fewer_steps_than_were_timed_is_said_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run(tmp_path / "a" / "1", 2.0, write_steps(tmp_path / "t", 8), steps=99)
    b = run(tmp_path / "b" / "1", 1.0, write_steps(tmp_path / "u", 8), steps=99)
    c = run(tmp_path / "c" / "1", 1.0, write_steps(tmp_path / "v", 5, iterations=2), steps=5)
    d = run(tmp_path / "d" / "1", 1.0, write_steps(tmp_path / "w", 5, iterations=1), steps=5)
    found = compared(a, b, capsys=capsys)
    assert found["trace"]["unit"] == "decode step"
    assert found["warnings"] == [
        "a and b: their traces have only 8 of the 99 decode steps of an iteration; traced times are of these"
    ]
    assert not compared(c, d, capsys=capsys)["warnings"]


def test_traces_with_other_numbers_of_steps_compare_per_step_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write_steps(tmp_path / "a.sqlite", 12), write_steps(tmp_path / "b.sqlite", 8)
    found = compared(a, b, capsys=capsys)
    assert found["trace"]["unit"] == "decode step"
    said = "a has 12 decode steps in an iteration, b has 8 decode steps in an iteration: compared per decode"
    assert any(said in one for one in found["warnings"])
    assert {one["phase"] for one in found["trace"]["left_out"]} == {"harness:iter", "harness:decode"}


def test_steps_that_give_several_tokens_do_not_compare_with_steps_that_give_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(tmp_path / "plain" / "1", 1.0, write_steps(tmp_path / "a", 9), steps=9)
    draft = run(tmp_path / "draft" / "1", 1.0, write_steps(tmp_path / "b", 3), steps=3, tokens=9)
    cut = run(tmp_path / "cut" / "1", 1.0, write_steps(tmp_path / "c", 2), steps=3, tokens=9)
    trace = compared(plain, draft, capsys=capsys)["trace"]
    assert trace["unit"] == "iteration"
    (step,) = trace["left_out"]
    assert step == {
        "phase": "harness:decode.step",
        "why": "a decode step gives 1 tokens in plain, 3 in draft",
    }
    assert compared(plain, cut, capsys=capsys)["trace"]["unit"] is None


@pytest.mark.parametrize(
    ("kernel_ns", "host_ns", "expected"),
    [
        # Of 25 µs less, 75 are host code and −50 work.
        (60_000, 5_000, "GPU work +50 µs, idle time -75 µs (-75 `host`)"),
        (5_000, 95_000, "GPU work -5 µs, idle time +15 µs (+15 `host`)"),
        (5_000, 80_000, "100% is GPU work that went away"),
    ],
)
def test_no_part_is_more_than_the_whole(
    tmp_path: Path, kernel_ns: int, host_ns: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_trace(tmp_path / "a.sqlite", 8, 80_000, {"gemm": 10_000})
    after = write_trace(tmp_path / "b.sqlite", 8, host_ns, {"gemm": kernel_ns})
    sentence = compared(before, after, capsys=capsys)["sentence"]
    assert expected in sentence
    assert all(int(share) <= 100 for share in re.findall(r"(\d+)%", sentence))


def test_long_names_leave_the_metrics_whole(tmp_path: Path) -> None:
    name = "a-scope-with-quite-a-long-name"
    folders = [tmp_path / f"results-of-a-rather-long-{which}-day" for which in ("first", "second")]
    for folder, ms in zip(folders, (2.0, 1.0), strict=True):
        run(folder / name / "20260101T000000Z", ms, write_steps(tmp_path / "t", 8), steps=8)
    done = analysis("compare", *folders, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"B: {folders[1].name}/{name}" in lines
    for metric in ("total_ms", "ms_per_token", "real_time_factor", "harness:decode.step", "idle_share"):
        assert any(line.split()[:1] == [metric] for line in lines), metric
    assert "…" not in done.stdout


@pytest.mark.parametrize(
    ("gpus", "faster", "said"),
    [
        ((1, 2), False, "1 GPU at work in a and 2 GPUs at work in b: times per decode step are device time"),
        ((2, 2), True, "both traces have 2 GPUs at work: times per decode step are device time summed over"),
        ((1, 1), True, ""),
    ],
)
def test_other_numbers_of_gpus_make_nothing_faster_or_slower(
    tmp_path: Path, gpus: tuple[int, int], faster: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same kernels in half the time, one after the other, on as many GPUs."""
    kernels = {"gemm": 10_000, "softmax": 10_000}
    a, b = (
        write_trace(tmp_path / f"{name}.sqlite", 8, host_ns, kernels, gpus=n)
        for name, n, host_ns in zip("ab", gpus, (40_000, 10_000), strict=True)
    )
    found = compared(a, b, capsys=capsys)
    assert found["trace"]["gpus"] == list(gpus)
    assert found["sentence"].startswith("b is 2.2x faster per decode step (traced)") == faster
    assert any(said in one for one in found["warnings"]) and len(found["warnings"]) == 1 + bool(said)
    assert bool(found["trace"]["phases"]) == faster
    if not faster:
        assert found["sentence"] == (
            "These traces of a and b don't say which is faster: "
            "1 GPU at work in a and 2 GPUs at work in b, and traced times are summed over GPUs"
        )
        runs = [write_run(tmp_path / one.stem / "1", [2.0 - n] * 8) for n, one in enumerate((a, b))]
        for folder, trace in zip(runs, (a, b), strict=True):
            trace.rename(folder / "trace.sqlite")
        assert compared(*runs, capsys=capsys)["sentence"] == "b is 2.0x faster per token than a (2 → 1 ms)"


def test_other_conditions_are_told_apart_from_other_work(tmp_path: Path) -> None:
    told = []
    for number, (driver, power) in enumerate((("580.1", 700_000), ("590.2", 600_000))):
        gpu = {"driver": driver, "power_limit_mw": power}
        about = {
            "machine": "H200",
            "gpu": gpu,
            "python": f"3.1{number}",
            "packages": {"torch": f"2.1{number}"},
        }
        told.append(write_run(tmp_path / "x" / str(number), [7.0] * 8, environment=about))
    assert subjects.check(*subjects.recorded_runs(*told), force=False) == [
        "differs: driver: 580.1 and 590.2",
        "differs: power limit, mW: 700000 and 600000",
        "differs: python: 3.10 and 3.11",
        "differs: torch: 2.10 and 2.11",
    ]
