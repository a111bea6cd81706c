"""Numbers that are not well known are shown as such."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.report import latency_table, memory_sentence, verdict_table
from harness.results import table_row
from harness.verdict import judge

QUARTILES = {"ms_per_token": 7.0, "ms_per_token.p25": 6.5, "ms_per_token.p75": 7.5}
KNOWN = {"ms_per_token.low": 6.95, "ms_per_token.high": 7.05}
VAGUE = {"ms_per_token.low": 6.5, "ms_per_token.high": 7.5}


@pytest.mark.parametrize(("limits", "remark"), [({}, ""), (KNOWN, ""), (VAGUE, "unstable ±7.1%")])
def test_an_unstable_median_is_marked_in_the_report(limits: dict[str, float], remark: str) -> None:
    shown = io.StringIO()
    Console(file=shown, width=120).print(latency_table(QUARTILES | limits, "Latency"))
    row = next(line for line in shown.getvalue().splitlines() if "per token" in line)
    assert row.rstrip().endswith(remark or "7.5")
    assert ("6.95 – 7.05" in row) == (limits is KNOWN)


def test_an_unstable_median_is_marked_in_the_table_of_scopes() -> None:
    run = {"scope": "flash", "tokens_match": None, "verdict": None}
    assert table_row(run, QUARTILES | KNOWN)[1] == "7.000 (6.500–7.500)"
    assert table_row(run, QUARTILES | VAGUE)[1] == "7.000 (6.500–7.500), unstable ±7.1%"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([True, True], "held"),
        ([True, None], "undecided"),
        ([True, False, None], "did not hold: b"),
        ([], "–"),
    ],
)
def test_the_table_of_scopes_says_what_did_not_hold(held: list[bool | None], said: str) -> None:
    verdict = [{"metric": name, "held": one} for name, one in zip("abc", held, strict=False)]
    run = {"scope": "flash", "tokens_match": None, "verdict": json.dumps(verdict)}
    assert table_row(run, {"profiling_overhead": -0.001})[-1] == said
    assert "+0%" in table_row(run, {"profiling_overhead": -0.001})


def test_a_verdict_has_the_units_of_its_expectation() -> None:
    found = {"decode.idle_share": 0.8919, "token_agreement": 0.78, "encode_ms": 1.671}
    expect = [{"metric": name, "at_least": 0.5} for name in found]
    shown = io.StringIO()
    Console(file=shown, width=120).print(verdict_table(judge(expect, found, "cuda"), "claim"))
    for value in ("89.2%", "78.00%", "1.671 ms"):
        assert f" {value} " in shown.getvalue()


def test_bytes_of_a_loop_are_set_against_the_time_that_it_takes_without_a_profiler() -> None:
    sampled = {"decode.dram_gbps": 1000.0, "decode.dram_share": 0.25, "decode.bytes_per_token": 3e8}
    said = memory_sentence(sampled | {"ms_per_token": 0.2, "metrics_overhead": 0.5})
    assert "took 50.0% longer): a token moves 300 MB; DRAM is at 1,000 GB/s, " in said
    assert "25.0% of its peak there, and 37.5% at the pace" in said, "300 MB in 0.2 ms of 4,000 GB/s"
    assert "a decode step moves 320 MB; DRAM" in memory_sentence(sampled | {"decode.bytes_per_step": 3.2e8})
