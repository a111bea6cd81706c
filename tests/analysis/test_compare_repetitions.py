"""Each repetition of a range has the work launched in it, and the gaps that this work ended."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from programs import recordings
from recording import Recording
from test_causes import drawn

from analysis import Account, Trace, account
from analysis.causes import CAUSES
from analysis.compiled import WORTH_COMPILING
from analysis.host import match_launches
from analysis.repetitions import PIECE, STEPS, WINDOW, Repeats, Unit, units
from benchmarks.big_trace import write_big_trace


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repetitions") / "t.sqlite"


@drawn
@given(recordings())
def test_a_repetition_has_the_work_launched_in_it_and_the_gaps_that_this_ended(
    path: Path, seen: Recording
) -> None:
    with Trace.open(seen.export().write(path)) as trace:
        acc = account(trace)
        repeats = Repeats(trace, acc)
        for unit in units(acc.phases):
            if unit not in (WINDOW, STEPS):
                mine = _one_by_one(trace, acc, unit)
                found = repeats.of(unit)[["busy_ns", "kernels", "work", *(f"{one}_ns" for one in CAUSES)]]
                assert found.to_numpy().tolist() == mine
                pieces = repeats.pieces(unit)
                assert pieces["count"].sum() == sum(one[2] for one in mine)


def _one_by_one(trace: Trace, acc: Account, unit: Unit) -> list[list[int]]:
    """busy_ns, kernels, work and idle ns by cause of each repetition with work, ordered by thread and start."""
    begin, end = acc.window_ns
    ended = {row: Counter[str]() for row in range(len(trace.work))}
    for segment in acc.segments(np.arange(len(acc.gaps))).to_dict("records"):
        if (after := acc.gaps["after_row"][segment["gap"]]) >= 0:
            ended[after][segment["cause"]] += segment["dur_ns"]
    work = trace.work.assign(call=match_launches(trace.work, trace.api)).reset_index().to_dict("records")
    calls = trace.api.to_dict("records")
    found = []
    for thread, first, last in _outermost(trace, acc, unit):
        mine = [
            one for one in work
            if one["call"] >= 0
            and calls[one["call"]]["thread"] == thread and first <= calls[one["call"]]["start_ns"] < last
            and (begin <= one["start_ns"] < end or begin < one["end_ns"] <= end or one["start_ns"] <= begin < end <= one["end_ns"])
        ]  # fmt: skip
        busy = {
            (one["device"], ns)
            for one in mine
            for ns in range(max(one["start_ns"], begin), min(one["end_ns"], end))
        }
        idle = sum((ended[one["index"]] for one in mine), Counter())
        kernels = sum(one["kind"] in ("kernel", "graph") for one in mine)
        if mine:
            found.append([len(busy), kernels, len(mine), *(idle[cause] for cause in CAUSES)])
    return found


def _outermost(trace: Trace, acc: Account, unit: Unit) -> list[tuple[int, int, int]]:
    """Thread, start and end of the ranges that lie in no other of their name."""
    found: list[tuple[int, int, int]] = []
    for one in trace.ranges.sort_values(["thread", "start_ns"], kind="stable").to_dict("records"):
        if (
            (one["domain"], one["name"]) == unit
            and one["start_ns"] < acc.window_ns[1]
            and one["end_ns"] > acc.window_ns[0]
        ):
            if not any(thread == one["thread"] and one["start_ns"] < until for thread, _, until in found):
                found.append((one["thread"], one["start_ns"], one["end_ns"]))
    return found


def test_in_machine_code_the_steps_add_up_to_their_phase_too(path: Path) -> None:
    write_big_trace(path, WORTH_COMPILING + 1001)
    with Trace.open(path) as trace:
        acc = account(trace)
        repeats = Repeats(trace, acc)
    for unit in units(acc.phases):
        table, pieces = repeats.of(unit), repeats.pieces(unit)
        assert pieces["count"].sum() == table["work"].sum() and not pieces.duplicated(PIECE).any()
        assert (
            repeats.times_ns(unit, pieces.index.to_numpy()).sum(axis=1).tolist()
            == pieces["total_ns"].tolist()
        )
        whole = acc.devices.iloc[0] if unit == WINDOW else acc.phase(unit[1])
        assert whole is not None
        for column in ("idle_ns", "kernels", "work", *(f"{one}_ns" for one in CAUSES)):
            assert table[column].sum() == whole[column], (unit, column)
        # Where the phase's repetitions don't overlap on the device, their busy time adds up as well.
        assert table["busy_ns"].sum() == whole["busy_ns"]
