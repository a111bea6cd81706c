"""`python -m analysis compare`: what changed, by how much, where, and what does not compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis_cli import analysis
from runs_on_disk import write_run, write_trace
from synthetic_export import Export

from analysis import Trace, account
from analysis.__main__ import main
from analysis.accounting.causes import CAUSE_COLUMNS
from analysis.comparison import numbers
from analysis.metrics import metrics
from analysis.repetitions import STEPS, WINDOW, Repeats, units
from analysis.statistics import Estimate
from analysis.step_metrics import step_metrics

RESULTS = Path(__file__).parents[2] / "results" / "h200"

# A step of A takes 100 µs: 60 of host code, 10 of launches, 30 of work. One of B takes 50: 20, 10 and 20.
A = {"steps": 12, "host_ns": 30_000, "kernels": {"gemm": 10_000, "softmax": 20_000}}
B = {"steps": 8, "host_ns": 10_000, "kernels": {"gemm": 10_000, "fused": 10_000}}


@pytest.fixture
def traces(tmp_path: Path) -> tuple[Path, Path]:
    """The same program before and after, the second trace shorter than the first."""
    return write_trace(tmp_path / "before.sqlite", **A), write_trace(tmp_path / "after.sqlite", **B)


def compared(*arguments: str | Path, cwd: Path) -> list[dict[str, Any]]:
    done = analysis("compare", *arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["comparisons"]
    return found


def test_traces_of_different_length_compare_per_step(traces: tuple[Path, Path], tmp_path: Path) -> None:
    (found,) = compared(*traces, cwd=tmp_path)
    trace = found["trace"]
    assert trace["unit"] == "decode step" and trace["counts"] == [12, 8]
    assert (trace["total"]["a"]["value"], trace["total"]["b"]["value"]) == (100, 50)
    delta = {part["metric"]: part["delta"]["value"] for part in trace["parts"]}
    assert delta["busy_us"] == -10 and delta["host_us"] == -40 and delta["launch_us"] == 0
    assert sum(delta.values()) == trace["total"]["delta"]["value"] == -50
    assert trace["total"]["delta"]["low"] == trace["total"]["delta"]["high"] == -50  # steps without noise
    assert found["sentence"] == (
        "after is 2.0x faster per decode step (traced) than before (100 → 50 µs); "
        "of the time saved per decode step, 80% is idle time that went away (80% `host`)"
    )
    kernels = {(one["name"], one["shape"]): one for one in trace["kernels"]}
    assert {name for name, _ in kernels} == {"softmax", "fused"}  # gemm is as it was
    softmax = kernels["softmax", "(1,1,1)x(128,1,1)"]
    assert softmax["calls"] == [1, 0] and softmax["delta"]["value"] == -20
    assert any("a trace alone doesn't say which model" in warning for warning in found["warnings"])


def test_phases_that_hold_other_numbers_of_steps_are_left_out(
    traces: tuple[Path, Path], tmp_path: Path
) -> None:
    (found,) = compared(*traces, cwd=tmp_path)
    assert [phase["metric"] for phase in found["trace"]["phases"]] == ["harness:decode.step"]
    as_long = write_trace(tmp_path / "long.sqlite", **(B | {"steps": 12}))
    (found,) = compared(traces[0], as_long, cwd=tmp_path)
    phases = {phase["metric"]: phase["ratio"]["value"] for phase in found["trace"]["phases"]}
    assert phases == dict.fromkeys(["harness:iter", "harness:decode", "harness:decode.step"], -0.5)


def test_programs_without_ranges_are_compared_as_a_whole(tmp_path: Path) -> None:
    one, other = (
        write_trace(tmp_path / f"{name}.sqlite", **what, harness=False) for name, what in (("a", A), ("b", B))
    )
    (found,) = compared(one, other, cwd=tmp_path)
    assert found["trace"]["unit"] == "trace"
    # The window begins with the first kernel, so the first wait is not in it.
    assert (found["trace"]["total"]["a"]["value"], found["trace"]["total"]["b"]["value"]) == (1165, 385)
    assert any("no ranges in common" in warning for warning in found["warnings"])
    assert found["trace"]["total"]["delta"]["low"] is None


def test_tables_say_it_first_in_a_sentence(traces: tuple[Path, Path], tmp_path: Path) -> None:
    done = analysis("compare", *traces, traces[0], cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("after is 2.0x faster per decode step (traced) than before")
    assert "no difference between" in done.stdout  # the third is the first again
    assert "Kernels whose time changed" in done.stdout and "no clear change" in done.stdout


@pytest.mark.parametrize(
    ("metric", "is_share"),
    [
        *((name, True) for name in ("wer", "acceptance", "token_agreement", "decode.idle_share", "cer.high")),
        *((name, True) for name in ("idle_share_host", "launch_gap_share", "profiling_overhead")),
        *((name, False) for name in ("shared_expert", "answer", "power_w", "decode.kernels", "total_ms")),
    ],
)
def test_metrics_are_shares_by_whole_words_of_their_names(metric: str, is_share: bool) -> None:
    one = Estimate(0.5, None, None, 1)
    assert numbers.of_estimates(metric, one, one).is_share is is_share


def test_a_phase_takes_microseconds_whatever_it_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("first", "shared_expert", "wer", "lap_us", "[red]x")
    for path, kernel_ns in (("a", 100_000), ("b", 150_000)):
        export = Export()
        for step, name in enumerate(names * 2):
            export.range(name, step * 200_000, step * 200_000 + 50, domain=0)
            export.call(step * 200_000, step * 200_000 + 10, step)
            export.kernel(step * 200_000 + 20, step * 200_000 + 20 + kernel_ns, step)
        export.write(tmp_path / f"{path}.sqlite")
    assert main(["compare", str(tmp_path / "a.sqlite"), str(tmp_path / "b.sqlite")]) == 0
    lines = capsys.readouterr().out.partition("Phases, traced")[2].splitlines()
    rows = {words[0]: words[1:] for words in map(str.split, lines) if words}
    for name in names[1:]:
        assert rows[name][:4] == ["200", "200", "+0", "+0.0%"], name


@pytest.fixture
def runs(tmp_path: Path, traces: tuple[Path, Path]) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    old = tmp_path / "old"
    slow = write_run(old / "baseline" / "20260101T000000Z", rng.normal(7, 0.05, 20), tokens=A["steps"])
    fast = write_run(old / "graphs" / "20260102T000000Z", rng.normal(1, 0.005, 20), tokens=B["steps"])
    traces[0].rename(slow / "trace.sqlite")
    traces[1].rename(fast / "trace.sqlite")
    return slow, fast


def test_latencies_of_runs_come_with_intervals(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (found,) = compared(*runs, cwd=tmp_path)
    assert found["sentence"].startswith("graphs is 7.0x faster per token than baseline (7")
    assert "80% is idle time that went away (80% `host`)" in found["sentence"]
    latency = {one["metric"]: one for one in found["latencies"]}
    change = latency["ms_per_token"]
    assert change["delta"]["low"] < -6 < change["delta"]["high"] and change["repetitions"] == "iterations"
    assert latency["encode_ms"]["delta"]["value"] == 0
    assert not found["warnings"]


def test_runs_without_their_iterations_are_compared_by_what_they_recorded(tmp_path: Path) -> None:
    known = {"ms_per_token": 7.0, "ms_per_token.low": 6.9, "ms_per_token.high": 7.1, "kernels": 3.0}
    a = write_run(tmp_path / "a" / "1", [], metrics=known)
    b = write_run(tmp_path / "b" / "1", [], metrics={name: 2 * value for name, value in known.items()})
    (found,) = compared(a, b, cwd=tmp_path)
    (latency,) = found["latencies"]
    assert latency["metric"] == "ms_per_token" and latency["delta"]["value"] == 7
    # In quadrature: 0.1 and 0.2 ms; for the ratio of 2, the logarithms of 70/69 and 71/70.
    assert latency["delta"]["high"] == pytest.approx(7 + 0.05**0.5)
    down, up = np.log(70 / 69), np.log(71 / 70)
    assert latency["ratio"]["low"] == pytest.approx(2 * np.exp(-np.hypot(down, up)) - 1)
    assert any("no such iterations in measure.json" in warning for warning in found["warnings"])


def test_runs_on_a_cpu_are_compared_by_their_latencies(runs: tuple[Path, Path], tmp_path: Path) -> None:
    export = Export()
    export.range("decode", 0, 1_000)
    export.write(runs[1] / "trace.sqlite")
    (found,) = compared(*runs, cwd=tmp_path)
    assert found["trace"] is None and len(found["latencies"]) > 2
    assert found["warnings"] == ["graphs has no GPU trace: causes, phases, kernels not compared"]


def test_folders_are_compared_scope_by_scope_by_their_newest_run(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    new = tmp_path / "new"
    write_run(new / "baseline" / "20260201T000000Z", [7.0] * 8)
    write_run(new / "baseline" / "20260202T000000Z", [3.5] * 8)
    write_run(new / "baseline" / "20260203T000000Z", [1.0] * 8, status="failed")
    write_run(new / "flash" / "20260201T000000Z", [6.0] * 8)
    (found,) = compared(tmp_path / "old", new, cwd=tmp_path)
    assert found["b"]["path"].endswith("20260202T000000Z") and "2.0x faster" in found["sentence"]
    assert any("has no GPU trace" in warning for warning in found["warnings"])
    (same,) = compared(tmp_path / "old" / "graphs", runs[1], cwd=tmp_path)
    assert "no difference" in same["sentence"]


def test_other_work_is_refused_and_other_machines_are_a_warning(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(other: Path, *options: str) -> tuple[int, str]:
        code = main(["compare", str(runs[0]), str(other), *options])
        output = capsys.readouterr()
        return code, " ".join((output.out + output.err).split())

    elsewhere = {"machine": "NVIDIA A100", "python": "3.12", "packages": {"torch": "2.12.0"}}
    model, audio, content, machine = (
        write_run(tmp_path / "x" / str(number), [7.0] * 8, **changes)
        for number, changes in enumerate(
            [{"model": "large"}, {"audio": "speech.flac"}, {"inputs": "other"}, {"environment": elsewhere}]
        )
    )
    for other, what in (
        (model, "model: tiny and large"),
        (audio, "audio: harbour.flac and speech.flac"),
        (content, "the same name with other content"),
    ):
        code, text = said(other)
        assert code == 4 and what in text and "--force" in text
        code, text = said(other, "--force")
        assert code == 0 and "compared because of --force" in text and what in text
    code, text = said(machine)
    assert code == 0 and "differs: machine: NVIDIA H200 and NVIDIA A100" in text
    assert "differs: torch: 2.11.0 and 2.12.0" in text


def test_what_cannot_be_read_is_6(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text('{"id": 1}')
    (tmp_path / "text.sqlite").write_text("hello" * 100)
    untraced = write_run(tmp_path / "y" / "1", [], metrics={})
    for path, message in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "broken", "run.json can't be read"),
        (tmp_path / "foreign", "is not a run's record: it has no scope"),
        (tmp_path / "text.sqlite", "not an SQLite database"),
        (untraced, "nothing in common to compare"),
    ):
        assert main(["compare", str(runs[0]), str(path)]) == 6
        error, _, hint = capsys.readouterr().err.partition("\n")
        assert error.startswith("error: ") and message in error and hint.startswith("  try: ")


def test_usage(tmp_path: Path) -> None:
    assert analysis("compare", "one", cwd=tmp_path).returncode == 2
    for command in ("compare", "check", "export"):
        done = analysis(command, "--help", cwd=tmp_path)
        assert done.returncode == 0 and "exit codes: 0" in done.stdout
        assert f"python -m analysis {command}" in analysis("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("scope", ["baseline", "cuda_graphs"])
def test_the_steps_add_up_to_the_decode_phase_and_the_window_to_the_device(scope: str) -> None:
    (path,) = RESULTS.glob(f"{scope}/*/trace.sqlite.xz")
    with Trace.open(path) as trace:
        acc = account(trace)
        repeats = Repeats(trace, acc)
    steps, whole, pieces = repeats.of(STEPS), repeats.of(WINDOW), repeats.pieces(STEPS)
    times = repeats.times_ns(STEPS, pieces.index.to_numpy())
    decode = acc.phase("decode")
    known = units(acc.phases)
    assert known[0] == STEPS and known[-1] == WINDOW and decode is not None
    columns = ["busy_ns", "idle_ns", *CAUSE_COLUMNS, "kernels", "work"]
    assert len(steps) > 1 and steps[columns].sum().tolist() == decode[columns].tolist()
    assert whole[columns].sum().tolist() == acc.devices[columns].sum().tolist()
    assert pieces["count"].sum() == steps["work"].sum() and times.shape == (len(pieces), len(steps))
    assert times.sum(axis=1).tolist() == pieces["total_ns"].tolist()


def test_headline_numbers_of_a_trace_have_intervals_over_its_steps(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    export, now = Export(), 0
    export.domain("harness", 1)
    for step in range(40):
        begin, called = now, now + int(rng.normal(30_000, 3_000))
        export.call(called, called + 2_000, step)
        export.kernel(called + 5_000, called + 15_000, step)
        now = called + 15_000
        export.range("decode.step", begin, now)
    export.range("decode", 0, now)
    export.range("iter", 0, now)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        acc = account(trace)
        found = metrics(acc)
        found |= step_metrics(trace, acc, found)
    assert found["decode.idle_share.low"] < found["decode.idle_share"] < found["decode.idle_share.high"]
    assert found["kernels_per_token.low"] == found["kernels_per_token.high"] == 1
    assert found["busy_ms_per_token"] == 0.01
    assert 0.033 < found["idle_ms_per_token.low"] < 0.035 < found["idle_ms_per_token.high"] < 0.037
    assert "idle_share.low" not in found  # one iteration can't be resampled
