"""Each idle nanosecond has the cause that the rules give it: an oracle looks at one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from oracle import CAUSES, DISPATCH_LIMIT_NS, Oracle, sound
from programs import recordings
from recording import DOMAINS, Recording
from synthetic_export import Export

from analysis import Account, Trace, account
from analysis.accounting import causes
from analysis.accounting.causes import CAUSE_COLUMNS

Analyse = Callable[..., Account]
REAL_LIMIT_NS = causes.DISPATCH_LIMIT_NS
# No `explain`: it takes as long again as shrinking, and an oracle has said what is wrong.
phases = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
drawn = settings(max_examples=50, deadline=None, suppress_health_check=shared, phases=phases)


@pytest.fixture(scope="module", autouse=True)
def short_dispatch() -> Iterator[None]:
    """The limit that the oracle has, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causes, "DISPATCH_LIMIT_NS", DISPATCH_LIMIT_NS)
        yield


@pytest.fixture(scope="module")
def analyse(tmp_path_factory: pytest.TempPathFactory) -> Analyse:
    path = tmp_path_factory.mktemp("programs") / "t.sqlite"

    def analyse(export: Export, shuffle: int | None = None) -> Account:
        return _account(export.write(path, shuffle))

    return analyse


def _account(path: Path) -> Account:
    with Trace.open(path) as trace:
        return account(trace)


def _per_nanosecond(acc: Account, device: int) -> dict[int, str]:
    """The cause of each idle nanosecond, from the segments of the gaps."""
    parts = acc.segments(acc.gaps.index[acc.gaps["device"] == device].to_numpy())
    spans = zip(parts["start_ns"], parts["end_ns"], parts["cause"], strict=True)
    listed = [(ns, cause) for start, end, cause in spans for ns in range(start, end)]
    assert len(listed) == len(dict(listed))
    return dict(listed)


def _spent(causes: Counter[str]) -> dict[str, int]:
    return {f"{cause}_ns": causes[cause] for cause in CAUSES}


@drawn
@given(seen=recordings())
def test_every_idle_nanosecond_has_the_cause_that_the_rules_give(analyse: Analyse, seen: Recording) -> None:
    oracle, acc = Oracle(seen), analyse(seen.export())
    assert acc.window_ns == oracle.window
    assert acc.devices["device"].tolist() == oracle.devices
    for device in acc.devices.to_dict("records"):
        expected = oracle.causes(device["device"])
        assert _per_nanosecond(acc, device["device"]) == expected
        assert {name: device[name] for name in CAUSE_COLUMNS} == _spent(Counter(expected.values()))
        assert device["busy_ns"] == len(oracle.busy(device["device"]))
        for gap in acc.gaps[acc.gaps["device"] == device["device"]].to_dict("records"):
            spent = Counter(expected[ns] for ns in range(gap["start_ns"], gap["end_ns"]))
            assert gap["cause"] == max(CAUSES, key=spent.__getitem__)


@drawn
@given(seen=recordings())
def test_a_phase_has_the_work_launched_in_it_and_the_gaps_that_this_ended(
    analyse: Analyse, seen: Recording
) -> None:
    table = analyse(seen.export()).phases.astype({"domain": str, "name": str}).set_index(["domain", "name"])
    columns = ["busy_ns", "idle_ns", "kernels", "work", *CAUSE_COLUMNS]
    assert table[columns].to_dict("index") == Oracle(seen).phases()


@drawn
@given(seen=recordings())
def test_everything_adds_up_and_nothing_exceeds_what_encloses_it(analyse: Analyse, seen: Recording) -> None:
    acc = analyse(seen.export())
    devices, phases = acc.devices, acc.phases.set_index(["domain", "name"])
    assert (devices["busy_ns"] + devices["idle_ns"] == acc.window_ns[1] - acc.window_ns[0]).all()
    for table in (devices, phases):
        assert (table[CAUSE_COLUMNS].sum(axis=1) == table["idle_ns"]).all()
        assert (table[["busy_ns", "idle_ns", "kernels", "work", *CAUSE_COLUMNS]] >= 0).all(axis=None)
    parts = acc.segments(acc.gaps.index.to_numpy())
    assert (parts["end_ns"] > parts["start_ns"]).all()
    assert parts.groupby("gap")["dur_ns"].sum().tolist() == acc.gaps["dur_ns"].tolist()
    for inner, outer in permutations(phases.index, 2):
        if _encloses(seen, outer, inner):
            columns = ["busy_ns", "idle_ns", "kernels", "work", *CAUSE_COLUMNS]
            assert (phases.loc[inner, columns] <= phases.loc[outer, columns]).all()


def _encloses(seen: Recording, outer: tuple[str, str], inner: tuple[str, str]) -> bool:
    """Whether each range of the one phase lies in a range of the other, in the same thread."""
    last = max(max(one.start, one.end or 0) for one in [*sound(seen.work), *seen.calls, *seen.ranges])
    spans: dict[tuple[str, str], list[tuple[int, int, int, int]]] = {outer: [], inner: []}
    for one in seen.ranges:
        end = last if one.end is None else one.end
        spans.setdefault((DOMAINS[one.domain], one.name), []).append((one.pid, one.thread, one.start, end))
    return all(
        any((pid, thread) == (p, t) and s <= start and end <= e for p, t, s, e in spans[outer])
        for pid, thread, start, end in spans[inner]
    )


@drawn
@given(seen=recordings(), seed=st.integers(0, 1000))
def test_the_order_of_rows_in_the_file_decides_nothing(analyse: Analyse, seen: Recording, seed: int) -> None:
    export = seen.export()
    one, other = analyse(export), analyse(export, seed)
    assert (one.window_ns, one.warnings) == (other.window_ns, other.warnings)
    for name in ("devices", "gaps", "kernels"):
        pd.testing.assert_frame_equal(_plain(getattr(one, name)), _plain(getattr(other, name)))
    pd.testing.assert_frame_equal(
        *(_plain(acc.phases).sort_values(["domain", "name"], ignore_index=True) for acc in (one, other))
    )
    rows = one.gaps.index.to_numpy()
    pd.testing.assert_frame_equal(_plain(one.segments(rows)), _plain(other.segments(rows)))


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(object)


def test_work_that_only_its_name_or_shape_tells_apart_comes_in_one_order(analyse: Analyse) -> None:
    export = Export()
    export.kernel(0, 10, None)
    for name in ("kernel_b", "kernel_c", "kernel_d"):
        export.kernel(20, 30, None, name=name)
        export.kernel(40, 50, None, grid=(len(export.strings), 1, 1))
    (names,) = {tuple(analyse(export, seed).gaps["after"]) for seed in range(8)}
    assert names == ("kernel_b", "kernel_a")


def test_a_gap_names_the_rows_of_the_traces_work_between_which_it_lies(tmp_path: Path) -> None:
    """Also where the window leaves work out."""
    export = Export()
    export.domain("harness")
    export.range("iter", 100, 300)
    for correlation, start in enumerate((20, 120, 200, 320)):
        export.kernel(start, start + 10, correlation)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        gaps, start = account(trace).gaps, trace.work["start_ns"]
    rows = [-1 if row < 0 else int(start[row]) for row in gaps["before_row"]]
    assert rows == [-1, 120, 200]
    rows = [-1 if row < 0 else int(start[row]) for row in gaps["after_row"]]
    assert rows == [120, 200, -1]


@pytest.mark.parametrize("cause", CAUSES)
def test_the_drawn_programs_reach_every_cause(cause: str) -> None:
    """Otherwise the tests above would say little."""
    reached = find(
        recordings(),
        lambda seen: any(cause in Oracle(seen).causes(one).values() for one in Oracle(seen).devices),
        settings=settings(max_examples=1000, database=None, phases=[Phase.generate], deadline=None),
    )
    assert reached.work


@pytest.mark.parametrize(
    ("gap_ns", "cause"), [(DISPATCH_LIMIT_NS, "dispatch"), (DISPATCH_LIMIT_NS + 1, "unknown")]
)
def test_a_long_wait_that_nothing_explains_is_not_called_dispatch(
    analyse: Analyse, gap_ns: int, cause: str
) -> None:
    export = Export()
    for correlation, start in ((1, 100), (2, 200 + gap_ns)):
        export.call(correlation * 10, correlation * 10 + 5, correlation)
        export.kernel(start, start + 100, correlation)
    assert analyse(export).gaps["cause"].tolist() == [cause]


@pytest.mark.parametrize(("lost", "said"), [(1, False), (2, True)])
def test_more_than_a_hundredth_of_work_without_a_launch_call_is_worth_a_warning(
    lost: int, said: bool, tmp_path: Path
) -> None:
    export = Export()
    for number in range(100):
        export.kernel(100 * number + 20, 100 * number + 60, number)
        if number >= lost:
            export.call(100 * number, 100 * number + 10, number)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        found = account(trace).warnings
    assert any(f"{lost} of 100 pieces of work have no launch call" in one for one in found) is said


@pytest.mark.parametrize(
    ("gap_ns", "context", "cause"),
    [(20_000, 1, "dispatch"), (20_001, 1, "unknown"), (20_000, 2, "dependency"), (20_001, 2, "dependency")],
)
def test_work_launched_in_time_is_dispatched_within_20_us_of_its_own_stream(
    gap_ns: int, context: int, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of one number in two contexts are two streams."""
    monkeypatch.setattr(causes, "DISPATCH_LIMIT_NS", REAL_LIMIT_NS)
    export = Export()
    for number, (start, owner) in enumerate(((1_000, 1), (3_000 + gap_ns, context))):
        export.call(100 * number, 100 * number + 50, number)
        export.kernel(start, start + 2_000, number, context=owner)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        assert account(trace).gaps[["dur_ns", "cause"]].to_numpy().tolist() == [[gap_ns, cause]]
