"""A ladder's bars are told apart, and the closing table marks what is not steady."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis import plots
from harness.record import Record
from harness.sweep import Outcome, close, labels, ladder


def record(scope: str, *overrides: str) -> Record:
    capture: dict[str, Any] = {}
    return Record(
        id=f"{scope}/x", scope=scope, started_utc="20261122T120000Z", fingerprint="", inputs="", command=[],
        overrides=[f"+scope={scope}", "device=cpu", *overrides], model="", device="cpu", environment={},
        capture=capture,
    )  # fmt: skip


def test_different_scopes_go_by_their_names() -> None:
    assert labels([record("baseline"), record("flash")]) == ["baseline", "flash"]


def test_runs_of_one_scope_go_by_what_differs() -> None:
    ran = [record("baseline"), record("graphs", "graphs.how=manual"), record("graphs", "graphs.how=compile")]
    assert labels(ran) == ["baseline", "graphs graphs.how=manual", "graphs graphs.how=compile"]


def test_the_same_run_again_has_a_name_of_its_own() -> None:
    assert labels([record("baseline")] * 3) == ["baseline", "baseline (again)", "baseline (again 2)"]


def test_the_closing_table_marks_times_that_are_not_sure(tmp_path: Path) -> None:
    steady, shaky, short = record("steady"), record("shaky"), record("short")
    steady.metrics = {"ms_per_token": 1.0, "ms_per_token.low": 0.99, "ms_per_token.high": 1.01}
    shaky.metrics = steady.metrics | {"ms_per_token.low": 0.2}
    short.metrics = {"ms_per_token": 1.0}
    said = StringIO()
    outcomes = [Outcome(one.scope, [], one, None) for one in (steady, shaky, short)]
    close(tmp_path / "sweep", outcomes, tmp_path, Console(file=said, width=200))
    rows = [line.rstrip() for line in said.getvalue().splitlines()]
    assert any("shaky" in row and row.endswith("1.000, unstable ±40.5%") for row in rows)
    too_few = "1.000, fewer than 6 iterations: too few to tell how sure"
    assert any("short" in row and row.endswith(too_few) for row in rows)
    assert any("steady" in row and row.endswith("1.000") for row in rows)


def test_the_ladders_columns_are_those_metrics_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the decode phase, not of the window; a cause that a traced run doesn't have is 0, and unknown of one
    without a trace."""
    traced, bare = record("traced"), record("bare")
    traced.metrics = {
        "ms_per_token": 1.0, "ms_per_token.low": 0.9, "ms_per_token.p25": 0.95, "ms_per_token.p75": 1.05,
        "ms_per_token.high": 1.1, "idle_share": 0.8, "decode.idle_share": 0.3, "idle_share_host": 0.7,
        "decode.idle_share_host": 0.2, "kernels_per_token": 230.0, "encode_ms": 5.0,
    }  # fmt: skip
    for one, day in ((traced, "20261122"), (bare, "20261124")):
        one.started_utc = f"{day}T120000Z"
        one.environment |= {"machine": "H200", "git": {"commit": "1a2b3c4d", "dirty": False}}
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "ladder", lambda rows, stamp: drawn.extend((rows, stamp)))
    monkeypatch.setattr(plots, "save", lambda figure, folder, stem: [folder / f"{stem}.png"])
    assert ladder([traced, bare], tmp_path) == [tmp_path / "ladder.png"]
    table, stamp = drawn
    one, other = table.set_index("scope").to_dict("index").values()
    named = ("ms_per_token", "low", "p25", "p75", "high", "idle_share", "kernels_per_token", "encode_ms")
    assert [one[name] for name in named] == [1.0, 0.9, 0.95, 1.05, 1.1, 0.3, 230.0, 5.0]
    assert (one["host_share"], one["launch_share"]) == (0.2, 0.0)
    assert all(math.isnan(value) for value in other.values())
    assert (stamp.machine, stamp.date) == ("H200", "2026-11-22 to 2026-11-24")
