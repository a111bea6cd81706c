"""A ladder's bars are told apart, and the closing table marks what is not steady."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.record import Record
from harness.sweep import Outcome, close, labels


def record(scope: str, *overrides: str) -> Record:
    empty: dict[str, Any] = {}
    return Record(
        id=f"{scope}/x", scope=scope, started_utc="20261122T120000Z", fingerprint="", inputs="", command=[],
        overrides=[f"+scope={scope}", "device=cpu", *overrides], model="", device="cpu", environment=empty,
        capture=empty,
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
