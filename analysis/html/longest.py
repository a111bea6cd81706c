"""The longest gaps, with what the launching thread did in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSES
from analysis.accounting.phases import HARNESS_DOMAIN
from analysis.reading.trace import Trace
from analysis.units import duration

HOST_CODE = "host code"  # the thread's time between CUDA calls
_CHAIN = 5  # pieces of a thread's time that are told one by one; of more, only sums
_NEGLIGIBLE = 0.02  # of a gap: pieces that no sentence needs


@dataclass(frozen=True)
class Gap:
    """One of the longest gaps: its causes add up to its length; `host` says what the host did meanwhile."""

    device: int
    start_ns: int  # since the window began
    dur_ns: int
    causes_ns: Mapping[str, int]
    phase: str
    before: str
    after: str
    host: str


@dataclass(frozen=True)
class _Piece:
    what: str
    start_ns: int
    end_ns: int

    @property
    def dur_ns(self) -> int:
        return self.end_ns - self.start_ns

    def __str__(self) -> str:
        return f"{self.what} {duration(self.dur_ns)}"


def longest_gaps(trace: Trace, acc: Account, top: int) -> list[Gap]:
    """The `top` longest gaps, the longest first."""
    gaps = acc.gaps.nlargest(top, "dur_ns", keep="all").head(top)
    rows = gaps.index.to_numpy()
    parts = acc.segments(rows)
    spent = parts.groupby(["gap", "cause"], observed=True)["dur_ns"].sum()
    split = dict(zip(spent.index.tolist(), spent.tolist(), strict=True))
    found = []
    launches = acc.launches(rows).tolist()
    for row, gap, launch in zip(rows.tolist(), gaps.to_dict("records"), launches, strict=True):
        causes_ns = {cause: split[row, cause] for cause in CAUSES if (row, cause) in split}
        found.append(
            Gap(
                device=int(gap["device"]),
                start_ns=int(gap["start_ns"]) - acc.window_ns[0],
                dur_ns=int(gap["dur_ns"]),
                causes_ns=causes_ns,
                phase=text(gap["phase"]),
                before=text(gap["before"]) or "start of the window",
                after=text(gap["after"]) or "end of the window",
                host=_story(trace, gap, launch, within_graph="graph" in causes_ns),
            )
        )
    return found


def _story(trace: Trace, gap: Mapping[Any, Any], row: int, *, within_graph: bool) -> str:
    """What the thread that ended a gap did in it, like "host code 12 µs → cudaMemcpyAsync 3.1 µs → …".

    row: of the call that launched what ended it. within_graph: another node of the same launch ran before.
    """
    start_ns, end_ns = int(gap["start_ns"]), int(gap["end_ns"])
    if gap["after_row"] < 0:
        return "nothing was launched any more"
    if row < 0:
        lacks = "no launch call in the trace"
        return f"{lacks}, but other work of the same launch" if within_graph else lacks
    api = trace.api
    launch = api.iloc[row]
    if launch["end_ns"] <= start_ns:
        return f"{launch['name']} had returned {duration(start_ns - launch['end_ns'])} before"
    if within_graph:
        return f"{launch['name']} had begun {duration(start_ns - launch['start_ns'])} before"
    mine = api[(api["thread"] == launch["thread"]) & (api["start_ns"] < end_ns) & (api["end_ns"] > start_ns)]
    until = min(end_ns, int(launch["end_ns"]))
    pieces = _pieces(mine.sort_values(["start_ns", "end_ns"]), start_ns, until)
    if launch["end_ns"] < end_ns:
        pieces.append(_Piece("on its way to the device", int(launch["end_ns"]), end_ns))
    return _told(pieces, end_ns - start_ns, _where(trace, int(launch["thread"]), pieces))


def _pieces(calls: pd.DataFrame, start_ns: int, until_ns: int) -> list[_Piece]:
    """A thread's time cut into its outermost calls and the host code between them."""
    pieces, reached = [], start_ns
    for call in calls.to_dict("records"):
        first, last = max(int(call["start_ns"]), reached), min(int(call["end_ns"]), until_ns)
        if last <= first:
            continue
        if first > reached:
            pieces.append(_Piece(HOST_CODE, reached, first))
        pieces.append(_Piece(str(call["name"]), first, last))
        reached = last
    if reached < until_ns:
        pieces.append(_Piece(HOST_CODE, reached, until_ns))
    return pieces


def _told(pieces: list[_Piece], span_ns: int, where: str) -> str:
    chain = _joined([piece for piece in pieces if piece.dur_ns >= _NEGLIGIBLE * span_ns])
    if len(chain) <= _CHAIN:
        return " → ".join(map(str, chain)) + where
    table = pd.DataFrame({"what": [p.what for p in pieces], "ns": [p.dur_ns for p in pieces]})
    sums = table.groupby("what")["ns"].agg(["sum", "size"]).sort_values("sum", ascending=False)
    worth = sums[sums["sum"] >= _NEGLIGIBLE * span_ns].head(_CHAIN)
    told = [
        f"{what} {duration(total)}"
        if what == HOST_CODE or size == 1
        else f"{what} ×{size:,} {duration(total)}"
        for what, total, size in worth.itertuples()
    ]
    calls = sum(piece.what != HOST_CODE for piece in pieces)
    return f"{', '.join(told)}; {calls:,} CUDA calls in all{where}"


def _joined(pieces: list[_Piece]) -> list[_Piece]:
    """Pieces of one kind that follow one another as one: from the first's start to the last's end."""
    joined: list[_Piece] = []
    for piece in pieces:
        if joined and joined[-1].what == piece.what:
            piece = _Piece(piece.what, joined.pop().start_ns, piece.end_ns)
        joined.append(piece)
    return joined


def _where(trace: Trace, thread: int, pieces: list[_Piece]) -> str:
    """The innermost range of the thread in the middle of its longest host code."""
    own = [piece for piece in pieces if piece.what == HOST_CODE]
    if not own:
        return ""
    longest = max(own, key=lambda piece: piece.dur_ns)
    middle = (longest.start_ns + longest.end_ns) // 2
    ranges = trace.ranges
    around = ranges[
        (ranges["thread"] == thread) & (ranges["start_ns"] <= middle) & (ranges["end_ns"] > middle)
    ]
    if around.empty:
        return " (outside all ranges)"
    ours = around[around["domain"] == HARNESS_DOMAIN]
    innermost = (ours if len(ours) else around).nlargest(1, "depth")
    return f" (in {innermost['name'].iloc[0]})"


def text(value: Any) -> str:
    """A name of a trace, "" where there is none."""
    return "" if pd.isna(value) else str(value)
