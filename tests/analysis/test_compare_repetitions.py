"""Each repetition of a range has the work launched in it, and the gaps that this work ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from programs import recordings
from recording import Recording
from test_causes import drawn

from analysis import Account, Trace, account
from analysis.accounting.causes import CAUSE_COLUMNS, CAUSES
from analysis.accounting.host import match_launches
from analysis.engine.compiled import pays
from analysis.repetitions import PIECE, STEPS, WINDOW, Repeats, Unit, units
from benchmarks.big_trace import write_big_trace

COMPILED_ROWS = 21_001


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repetitions") / "t.sqlite"


@drawn
@given(seen=recordings())
def test_a_repetition_has_the_work_launched_in_it_and_the_gaps_that_this_ended(
    path: Path, seen: Recording
) -> None:
    with Trace.open(seen.export().write(path)) as trace:
        acc = account(trace)
        repeats = Repeats(trace, acc)
        for unit in units(acc.phases):
            if unit in (WINDOW, STEPS):  # steps last until the next one begins: see test_compare
                continue
            expected = _one_by_one(trace, acc, unit)
            table = repeats.of(unit)[["busy_ns", "kernels", "work", *CAUSE_COLUMNS]]
            assert table.to_numpy().tolist() == expected
            times = repeats.times_ns(unit, np.arange(len(repeats.pieces(unit))))
            assert times.shape[1] == len(expected)


def _one_by_one(trace: Trace, acc: Account, unit: Unit) -> list[list[int]]:
    """busy_ns, kernels, work and idle ns by cause of each repetition with work, by thread and start."""
    ended: dict[int, Counter[str]] = {row: Counter() for row in range(-1, len(trace.work))}
    for segment in acc.segments(np.arange(len(acc.gaps))).to_dict("records"):
        ended[acc.gaps["after_row"][segment["gap"]]][segment["cause"]] += segment["dur_ns"]
    work = trace.work.assign(call=match_launches(trace.work, trace.api)).reset_index().to_dict("records")
    work = [one for one in work if one["call"] >= 0 and _overlaps(one, acc)]
    calls = trace.api.to_dict("records")
    found = []
    for span in _outermost(trace, acc, unit):
        mine = [one for one in work if _launched(calls[one["call"]], span)]
        spans = [
            (max(one["start_ns"], acc.window_ns[0]), min(one["end_ns"], acc.window_ns[1])) for one in mine
        ]
        busy = {(one["device"], ns) for one, span in zip(mine, spans, strict=True) for ns in range(*span)}
        idle = sum((ended[one["index"]] for one in mine), Counter[str]())
        kernels = sum(one["kind"] in ("kernel", "graph") for one in mine)
        if mine:
            found.append([len(busy), kernels, len(mine), *(idle[cause] for cause in CAUSES)])
    return found


def _overlaps(one: dict[Any, Any], acc: Account) -> bool:
    """Whether it lies in the window, where work that took no time may touch the ends."""
    begin, end = acc.window_ns
    if one["start_ns"] == one["end_ns"]:
        return bool(begin <= one["start_ns"] <= end)
    return bool(one["start_ns"] < end and one["end_ns"] > begin)


def _launched(call: dict[Any, Any], span: dict[Any, Any]) -> bool:
    inside = span["start_ns"] <= call["start_ns"] < span["end_ns"]
    return bool(call["thread"] == span["thread"] and inside)


def _outermost(trace: Trace, acc: Account, unit: Unit) -> list[dict[Any, Any]]:
    """The ranges that begin in no other of their name and thread."""
    found: list[dict[Any, Any]] = []
    for one in trace.ranges.sort_values(["thread", "start_ns"], kind="stable").to_dict("records"):
        mine = (one["domain"], one["name"]) == unit
        mine &= one["start_ns"] < acc.window_ns[1] and one["end_ns"] > acc.window_ns[0]
        if mine and not any(_launched(one, other) for other in found):
            found.append(one)
    return found


def test_in_machine_code_the_repetitions_add_up_to_their_phase_too(path: Path) -> None:
    assert pays(COMPILED_ROWS)
    write_big_trace(path, COMPILED_ROWS)
    with Trace.open(path) as trace:
        acc = account(trace)
        repeats = Repeats(trace, acc)
    columns = ["busy_ns", "idle_ns", *CAUSE_COLUMNS, "kernels", "work"]
    for unit in units(acc.phases):
        table, pieces = repeats.of(unit), repeats.pieces(unit)
        whole = acc.devices.iloc[0] if unit == WINDOW else acc.phase(unit[1])
        assert whole is not None
        # Each step begins on an empty device, so that not even busy time is shared.
        if unit != STEPS:
            assert table[columns].sum().tolist() == whole[columns].tolist()
        assert pieces["count"].sum() == table["work"].sum() and not pieces.duplicated(PIECE).any()
        times = repeats.times_ns(unit, np.arange(len(pieces)))
        assert times.sum(axis=1).tolist() == pieces["total_ns"].tolist()
