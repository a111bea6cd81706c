"""Numbers that are not well known are shown as such."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.report import latency_table
from harness.results import table_row

QUARTILES = {"ms_per_token": 7.0, "ms_per_token.p25": 6.5, "ms_per_token.p75": 7.5}
KNOWN = {"ms_per_token.low": 6.95, "ms_per_token.high": 7.05}
VAGUE = {"ms_per_token.low": 6.5, "ms_per_token.high": 7.5}


@pytest.mark.parametrize(("limits", "remark"), [({}, ""), (KNOWN, ""), (VAGUE, "unstable (±7.1%)")])
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
