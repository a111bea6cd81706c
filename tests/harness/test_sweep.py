"""A ladder's bars are told apart."""

from __future__ import annotations

from typing import Any

from harness.record import Record
from harness.sweep import labels


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
