"""`python -m analysis check --max/--min`: what limits hold, which of them are refused, how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from runs_on_disk import write_run

from analysis.__main__ import main
from analysis.comparison.limits import FINE, NOISY, REGRESSION, Limit, Outcome, Side, parse
from analysis.comparison.numbers import Change
from analysis.statistics import Estimate

METRICS = {
    "decode.idle_share": 0.2,
    "idle_share": 0.2,
    "decode.gap_median_us": 3.0,
    "kernels_per_token": 229.0,
    "ms_per_token.p99": 8.0,
    "token_agreement": 0.99,
    "tokens_per_round": 3.0,
    "wer": 0.0,
    "profiling_overhead": -0.01,
}
Gate = Callable[..., tuple[int, str]]


@pytest.fixture
def gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    """The exit code and the words of a check of a run, with its own metrics and times, against a baseline."""
    write_run(tmp_path / "base" / "1", [7.0] * 8, metrics=METRICS)

    def check(*options: str, ms: list[float] | None = None, **metrics: float) -> tuple[int, str]:
        folder = tmp_path / "new" / str(len(list(tmp_path.glob("new/*"))))
        named = METRICS | {name.replace("__", "."): value for name, value in metrics.items()}
        write_run(folder, [7.0] * 8 if ms is None else ms, metrics=named)
        try:
            code = main(["check", str(folder), "--baseline", str(tmp_path / "base" / "1"), *options])
        except SystemExit as usage:
            code = int(usage.code or 0)
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return check


def test_latency_holds_the_token_and_the_whole(gate: Gate, tmp_path: Path) -> None:
    code, said = gate("--max", "latency=+5%")
    assert code == 0 and said.count(" fine ") == 2 and "ms_per_token" in said and "total_ms" in said
    slow = write_run(tmp_path / "slow" / "1", [7.0] * 8, metrics=METRICS)
    text = (slow / "measure.json").read_text().replace('"iter_ns": 30500000', '"iter_ns": 45500000')
    (slow / "measure.json").write_text(text)  # the encoder takes longer, a token does not
    assert main(["check", str(slow), "--baseline", str(tmp_path / "base" / "1"), "--max", "latency=5%"]) == 1


def test_a_latency_that_just_one_of_the_runs_has_is_not_left_out(gate: Gate) -> None:
    code, said = gate("--max", "latency=+5%", ms=[])
    assert code == 2 and "new has no metric ms_per_token" in said


@pytest.mark.parametrize(
    ("limit", "now", "expected"),
    [
        ("token_agreement=-1pt", {"token_agreement": 0.50}, 1),
        ("token_agreement=-1pt", {"token_agreement": 0.985}, 0),
        ("token_agreement=1pt", {"token_agreement": 0.97}, 1),
        ("token_agreement=1pt", {"token_agreement": 1.0}, 0),
        ("tokens_per_round=-5%", {"tokens_per_round": 2.8}, 1),
        ("tokens_per_round=-0.5", {"tokens_per_round": 2.8}, 0),
        ("tokens_per_round=+0.5", {"tokens_per_round": 3.0}, 1),  # a rise was promised
        ("kernels_per_token=-0", {"kernels_per_token": 228.0}, 1),
    ],
)
def test_how_much_a_metric_may_fall(gate: Gate, limit: str, now: dict[str, float], expected: int) -> None:
    code, said = gate("--min", limit, **now)
    assert code == expected and "≥ " in said


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (Estimate(-0.10, -0.14, -0.06, 20), REGRESSION),
        (Estimate(-0.06, -0.08, -0.04, 20), NOISY),
        (Estimate(-0.04, -0.06, -0.03, 20), FINE),
        (Estimate(0.00, -0.30, 0.30, 20), NOISY),
        (Estimate(0.50, 0.40, 0.70, 20), FINE),
        (Estimate(-0.06, None, None, 3), NOISY),
        (Estimate(-0.06, None, None, 1), REGRESSION),
    ],
)
def test_a_fall_is_judged_like_a_rise(measured: Estimate, expected: str) -> None:
    assert parse("acceptance=-5pt", Side.MIN).judge(measured) == expected


@pytest.mark.parametrize(
    ("limit", "noticed"),
    [(parse("acceptance=-5pt", Side.MIN), -0.05 - 0.01), (parse("idle_share=+5pt"), 0.05 + 0.03)],
)
def test_the_smallest_change_that_counts_lies_beyond_the_limit_by_the_noise(
    limit: Limit, noticed: float
) -> None:
    """−0.04, between −0.07 and −0.03: a fall counts once the upper end is beyond the limit, a rise once the
    lower end is."""
    delta = Estimate(-0.04, -0.07, -0.03, 20)
    change = Change(limit.metric, delta, delta, delta, delta, "iterations")
    assert Outcome(limit, change, FINE).noticeable == pytest.approx(noticed)


@pytest.mark.parametrize(
    ("option", "limit", "message"),
    [
        (
            "--max",
            "token_agreement=+1pt",
            "more is better for token_agreement: use --min token_agreement=",
        ),
        ("--max", "acceptance=1pt", "more is better for acceptance"),
        ("--max", "speedup=+1", "use --min speedup=1"),
        ("--max", "tokens_per_round=+5%", "use --min tokens_per_round=5%"),
        *(
            ("--min", f"{metric}=-5%", f"less is better for {metric}: use --max {metric}=5%")
            for metric in ("latency", "total_ms", "ms_per_token.p99", "real_time_factor", "idle_share", "wer")
        ),
        ("--max", "latency=+2pt", "latency is no share, and pt are points of one"),
        ("--min", "tokens_per_round=-2pt", "tokens_per_round is no share"),
        ("--min", "latency", "'latency' is not METRIC=LIMIT"),
        ("--force", "--json", "at least one --max METRIC=LIMIT or --min METRIC=LIMIT is needed"),
        ("--max", "profiling_overhead=+5%", "% of a negative number mean nothing"),
    ],
)
def test_limits_that_mean_nothing_are_usage(gate: Gate, option: str, limit: str, message: str) -> None:
    code, said = gate(option, limit)
    assert code == 2 and message in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("limit", "ms", "expected", "remark"),
    [
        ("ms_per_token.p99=+1%", [7.0] * 8, 3, "no interval recorded"),
        ("latency=+5%", [7.1], 0, "one iteration"),
        ("latency=+5%", [7.1] * 3, 0, "fewer than 6 iterations"),
        ("latency=+5%", [8.0] * 3, 3, "fewer than 6 iterations"),
        ("latency=+5%", [8.0], 3, "one iteration"),
        ("kernels_per_token=0", [7.0], 0, "no interval, the value decides"),
    ],
)
def test_what_has_no_interval_says_why(
    gate: Gate, limit: str, ms: list[float], expected: int, remark: str
) -> None:
    code, said = gate("--max", limit, ms=ms, ms_per_token__p99=9.0)
    assert code == expected and remark in said


@pytest.mark.parametrize(
    ("limit", "row"),
    [
        ("latency=5", "ms_per_token 7 ms 7 ms +0 ms +0 ms to +0 ms ≤ +5 ms fine"),
        ("latency=5%", "ms_per_token 7 ms 7 ms +0.0% +0.0% to +0.0% ≤ +5% fine"),
        ("decode.gap_median_us=+1", "decode.gap_median_us 3 µs 3 µs +0 µs – ≤ +1 µs fine"),
        ("decode.idle_share=2", "decode.idle_share 20.0% 20.0% +0.00 pt – ≤ +200.00 pt fine"),
        ("decode.idle_share=2pt", "decode.idle_share 20.0% 20.0% +0.00 pt – ≤ +2pt fine"),
        ("kernels_per_token=3", "kernels_per_token 229 229 +0 – ≤ +3 fine"),
    ],
)
def test_values_and_limits_are_shown_with_their_unit(gate: Gate, limit: str, row: str) -> None:
    assert row in gate("--max", limit)[1]


@pytest.mark.parametrize(
    ("metric", "near"),
    [
        ("latncy", "latency;"),
        ("idle_shar", "idle_share, decode.idle_share;"),
        ("kernels", "kernels_per_token;"),
        (
            "foo",
            "latency, ms_per_token, total_ms, decode.idle_share, kernels_per_token, token_agreement, wer;",
        ),
    ],
)
def test_an_unknown_metric_gets_the_nearest_names_and_where_the_others_are(
    gate: Gate, metric: str, near: str
) -> None:
    code, said = gate("--max", f"{metric}=+5%")
    assert code == 2 and f"error: base and new have no metric {metric} try: {near}" in said
    assert "; the others are the metrics in /" in said and said.endswith("run.json")
