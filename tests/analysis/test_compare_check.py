"""`python -m analysis check`: regressions are found, noise is none, and what can't be told is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from analysis_cli import analysis
from runs_on_disk import write_run, write_trace
from synthetic_export import Export

from analysis.__main__ import main
from analysis.comparison.limits import FINE, NOISY, REGRESSION, judge, parse
from analysis.statistics import Estimate, change, change_of_estimates, estimate, median_of

RESULTS = Path(__file__).parents[2] / "results" / "h200"
DRAWS = 200


def verdict(a: np.ndarray, b: np.ndarray, limit: float = 0.05) -> str:
    return judge(change(median_of(a), median_of(b), relative=True), limit)


def iterations_ms(rng: np.random.Generator, n: int) -> np.ndarray:
    """Times of a run as they are: noise that resembles its neighbours, a drift by 2% while the machine warms
    up, and every tenth iteration up to tens of per cent slower."""
    noise = np.zeros(n)
    for i in range(1, n):
        noise[i] = 0.5 * noise[i - 1] + rng.normal(0, 0.01)
    outliers = (rng.random(n) < 0.1) * rng.exponential(0.15, n)
    return 7 * (1 + noise + np.linspace(0.02, 0, n) + outliers)


@pytest.mark.parametrize("n", [10, 20])
def test_a_run_against_itself_passes(n: int) -> None:
    rng = np.random.default_rng(11)
    found = Counter(verdict(iterations_ms(rng, n), iterations_ms(rng, n)) for _ in range(DRAWS))
    assert found[FINE] >= 0.95 * DRAWS and found[REGRESSION] <= 0.01 * DRAWS


def test_independent_noise_is_a_regression_in_hardly_any_case_even_at_limit_zero() -> None:
    rng = np.random.default_rng(12)
    found = Counter(verdict(rng.normal(7, 0.1, 20), rng.normal(7, 0.1, 20), 0.0) for _ in range(DRAWS))
    assert found[REGRESSION] <= 0.05 * DRAWS


@pytest.mark.parametrize("slower", [1.10, 1.20])
def test_a_run_that_got_slower_does_not_pass(slower: float) -> None:
    rng = np.random.default_rng(13)
    found = Counter(verdict(iterations_ms(rng, 20), slower * iterations_ms(rng, 20)) for _ in range(DRAWS))
    assert found[FINE] == 0 and found[REGRESSION] >= 0.9 * DRAWS


def test_a_limit_is_shown_as_the_change_that_it_is(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for written, shown in (("0.5", "+0.5"), ("+0.5", "+0.5"), ("-0", "-0"), ("5%", "+5%")):
        assert main(["check", str(baseline), "--baseline", str(baseline), "--max", f"latency={written}"]) == 0
        assert f" {shown} " in capsys.readouterr().out


def test_a_run_that_got_faster_passes() -> None:
    rng = np.random.default_rng(14)
    assert {verdict(iterations_ms(rng, 20), iterations_ms(rng, 20) / 2) for _ in range(20)} == {FINE}


def test_halves_of_the_published_runs_against_each_other() -> None:
    """Of a steady run nearly all are fine; of one that says that it is unstable, few are regressions."""
    rng = np.random.default_rng(15)
    found: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for path in sorted(RESULTS.glob("*/*/measure.json")):
        iterations = json.loads(path.read_text())["iterations"]
        times = np.array([sum(one["phases"]["decode"]) for one in iterations], dtype=np.float64)
        half = len(times) // 2
        orders = [np.arange(len(times)), np.r_[: len(times) : 2, 1 : len(times) : 2]]
        orders += [rng.permutation(len(times)) for _ in range(50)]
        verdicts = found[estimate(median_of(times)).unstable]
        verdicts.update(verdict(times[order[:half]], times[order[half:]]) for order in orders)
    steady, unstable = found[False], found[True]
    assert steady.total() >= 100
    assert steady[FINE] >= 0.95 * steady.total() and steady[REGRESSION] == 0
    assert unstable[REGRESSION] <= 0.05 * unstable.total()


@pytest.mark.parametrize(
    ("measured", "limit", "expected"),
    [
        (Estimate(0.10, 0.06, 0.14, 20), 0.05, REGRESSION),
        (Estimate(0.06, 0.04, 0.08, 20), 0.05, NOISY),  # above the limit, but perhaps not
        (Estimate(0.04, 0.03, 0.06, 20), 0.05, FINE),
        (Estimate(0.00, -0.30, 0.30, 20), 0.05, NOISY),  # anything may have happened
        (Estimate(-0.50, -0.70, -0.40, 20), 0.05, FINE),  # noisy, but certainly faster
        (Estimate(-0.02, -0.03, -0.01, 20), -0.05, REGRESSION),  # 5% faster was promised
        (Estimate(0.0, 0.0, 0.0, 20), 0.0, FINE),
        (Estimate(1.0, None, None, 1), 0.0, REGRESSION),  # one value, like a number of kernels
        (Estimate(1.0, None, None, 3), 0.0, NOISY),
        (Estimate(0.0, None, None, 3), 0.0, FINE),
    ],
)
def test_what_an_interval_means_for_a_limit(measured: Estimate, limit: float, expected: str) -> None:
    assert judge(measured, limit) == expected


@pytest.mark.parametrize(
    ("text", "metric", "most", "relative"),
    [
        ("latency=+5%", "latency", 0.05, True),
        ("idle_share=2pt", "idle_share", 0.02, False),
        ("total_ms=-1.5", "total_ms", -1.5, False),
        ("attention_kernels.flash_per_step=1e1", "attention_kernels.flash_per_step", 10.0, False),
    ],
)
def test_limits_are_read(text: str, metric: str, most: float, relative: bool) -> None:
    found = parse(text)
    assert (found.metric, found.bound, found.relative) == (metric, pytest.approx(most), relative)


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    rng = np.random.default_rng(20)
    metrics = {
        "idle_share": 0.20,
        "idle_share.low": 0.19,
        "idle_share.high": 0.21,
        "kernels_per_token": 229.0,
    }
    return write_run(tmp_path / "base" / "20260101T000000Z", iterations_ms(rng, 20), metrics=metrics)


def test_exit_codes_of_a_gate(baseline: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(21)
    metrics = {
        "idle_share": 0.30,
        "idle_share.low": 0.29,
        "idle_share.high": 0.31,
        "kernels_per_token": 230.0,
    }
    slower = write_run(tmp_path / "slower" / "1", 1.2 * iterations_ms(rng, 20), metrics=metrics)
    noisy = write_run(tmp_path / "noisy" / "1", 7 * np.exp(rng.normal(0, 1.0, 20)))
    few = write_run(tmp_path / "few" / "1", [8.0, 8.0])

    def gate(run: Path, *limits: str) -> int:
        options = [word for limit in limits for word in ("--max", limit)]
        return main(["check", str(run), "--baseline", str(baseline), *options])

    assert gate(baseline, "latency=+5%", "idle_share=+2pt", "kernels_per_token=0") == 0
    assert gate(slower, "latency=+5%") == 1
    assert gate(slower, "latency=+50%") == 0
    assert gate(slower, "latency=+50%", "idle_share=+2pt") == 1
    assert gate(slower, "latency=+50%", "idle_share=+12pt") == 0
    assert gate(slower, "latency=+50%", "kernels_per_token=0") == 1
    assert gate(noisy, "latency=+5%") == 3
    assert gate(few, "latency=+5%") == 3


def test_a_positive_number_never_falls_by_more_than_all_of_it() -> None:
    wide, steady = Estimate(1.0, 0.4, 4.0, 20), Estimate(2.0, 1.9, 2.1, 20)
    for a, b in ((steady, wide), (wide, steady), (wide, wide), (steady, Estimate(0.02, -0.01, 0.05, 20))):
        found = change_of_estimates(a, b, relative=True)
        assert found.low is not None and found.high is not None
        assert -1 <= found.low < found.value < found.high
    rng = np.random.default_rng(23)
    long, short = (median_of(scale * np.exp(rng.normal(0, 2.0, 8))) for scale in (7.0, 1.0))
    assert (change(long, short, relative=True).low or 0) > -1
    # Up by so much is down by so much, seen from the other side.
    up, down = (change_of_estimates(*pair, relative=True) for pair in ((wide, steady), (steady, wide)))
    assert up.low is not None and down.high is not None
    assert (1 + up.low) * (1 + down.high) == pytest.approx(1)


def test_a_number_that_was_zero_may_not_grow_unnoticed() -> None:
    zero, some = (Estimate(value, None, None, 1) for value in (0.0, 0.1))
    assert judge(change_of_estimates(zero, some, relative=True), 0.05) == REGRESSION
    assert judge(change_of_estimates(zero, zero, relative=True), 0.05) == FINE


def test_without_its_iterations_a_run_is_held_by_what_it_recorded_and_that_is_said(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def gate(run: Path) -> tuple[int, str]:
        code = main(["check", str(run), "--baseline", str(noisy), "--max", "latency=+5%", "--json"])
        return code, capsys.readouterr().out

    recorded = {"ms_per_token": 7.0, "ms_per_token.low": 2.0, "ms_per_token.high": 9.0, "total_ms": 28.0}
    noisy = write_run(tmp_path / "noisy" / "1", [7.0] * 20, metrics=recorded)
    bare = write_run(tmp_path / "bare" / "1", [], metrics=recorded)
    (bare / "measure.json").unlink()
    code, text = gate(bare)
    found = json.loads(text)
    assert code == 3 and found["outcomes"][0]["ratio"]["low"] > -1
    assert found["warnings"] == [
        "bare: no such iterations in measure.json, so latencies are compared by the medians and intervals "
        "in run.json, taken as independent"
    ]
    (itself,) = json.loads(gate(noisy)[1])["warnings"]
    assert "is held against itself" in itself
    # A time without an interval is not known to be worse, however much slower it is.
    unknown = write_run(tmp_path / "unknown" / "1", [], metrics={"ms_per_token": 14.0, "total_ms": 28.0})
    assert gate(unknown)[0] == 3
    main(["check", str(unknown), "--baseline", str(noisy), "--max", "latency=+5%"])
    assert "no interval recorded" in " ".join(capsys.readouterr().out.split())


def test_json_of_a_gate(baseline: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(22)
    slower = write_run(tmp_path / "slower" / "1", 1.2 * iterations_ms(rng, 20))
    done = analysis(
        "check", slower.parent, "--baseline", baseline, "--max", "latency=+5%", "--json", cwd=tmp_path
    )
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"] == 1 and found["verdict"] == "regression"
    outcome, other = found["outcomes"]
    assert (outcome["metric"], other["metric"]) == ("ms_per_token", "total_ms")
    assert (
        outcome["limit"] == {"text": "+5%", "most": 0.05, "relative": True}
        and 0.15 < outcome["ratio"]["value"] < 0.25
    )
    assert outcome["ratio"]["low"] > 0.05 and outcome["repetitions"] == "iterations"


def test_what_cannot_be_checked_is_said(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "other" / "1", [7.0] * 8, model="large")
    trace = write_trace(tmp_path / "t.sqlite", 2, 1000, {"a": 1000})
    (tmp_path / "empty").mkdir()

    def said(run: Path, limit: str = "latency=+5%", *more: str) -> tuple[int, str]:
        code = main(["check", str(run), "--baseline", str(baseline), "--max", limit, *more])
        return code, capsys.readouterr().err

    code, message = said(other)
    assert code == 4 and "model: tiny and large" in message and "--force" in message
    assert said(other, "latency=+5%", "--force")[0] == 0
    code, message = said(trace)
    assert code == 6 and "is a file, not a run's folder" in message and "compare A B" in message
    code, message = said(tmp_path / "empty")
    assert code == 6 and "holds no finished run" in message
    code, message = said(tmp_path / "nowhere")
    assert code == 6 and "no such file or folder" in message


def test_what_a_trace_tells_is_not_held_against_a_trace_with_whole_graphs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = {"decode.idle_share": 0.13, "kernels_per_token": 9.0, "decode.dram_share": 0.1}
    nodes, other, whole = (write_run(tmp_path / name / "1", [7.0] * 8, metrics=idle) for name in "abc")
    for run in (nodes, other):
        write_trace(run / "trace.sqlite", 2, 1000, {"a": 1000})
    export = Export()
    export.graph(0, 1000, None)
    export.write(whole / "trace.sqlite")

    def gate(run: Path, *options: str) -> tuple[int, str]:
        code = main(["check", str(run), "--baseline", str(nodes), *options])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    for metric in ("decode.idle_share", "kernels_per_token"):
        code, said = gate(whole, "--max", "latency=+5%", "--max", f"{metric}=0")
        assert code == 4 and f"{metric}: of a and c, one trace has its CUDA graphs as a whole" in said
        assert gate(other, "--max", f"{metric}=0")[0] == 0
    code, said = gate(whole, "--max", "decode.idle_share=0", "--force")
    assert code == 0 and "warning: compared because of --force: one trace has" in said
    assert gate(whole, "--max", "latency=+5%", "--max", "decode.dram_share=0")[0] == 0


def test_wrong_usage_is_2(baseline: Path, tmp_path: Path) -> None:
    done = analysis("check", baseline, "--baseline", baseline, "--max", "latency=fast", cwd=tmp_path)
    assert done.returncode == 2 and "is not METRIC=LIMIT, like latency=+5%" in done.stderr
    assert analysis("check", baseline, cwd=tmp_path).returncode == 2
