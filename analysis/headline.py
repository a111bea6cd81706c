"""What dominates, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.accounting import Account
from analysis.phases import DECODE_STEP, HARNESS_DOMAIN

_WAITS = {
    "launch": "waits for the host to launch",
    "queued": "although the next work was launched in time",
    "graph": "lies between nodes of CUDA graphs",
    "edge": "lies before the first or after the last work",
    "unknown": "has no known cause",
}


@dataclass(frozen=True)
class Focus:
    """The part of a trace that its figures and its headline speak about."""

    name: str  # "the decode phase", "the traced window"
    gaps: pd.DataFrame
    idle_ns: int
    busy_ns: int

    @property
    def idle_share(self) -> float:
        return self.idle_ns / max(self.idle_ns + self.busy_ns, 1)


def focus(acc: Account) -> Focus:
    """The harness's decode phase where the trace has one with GPU work, otherwise the whole window."""
    for name in ("decode", DECODE_STEP):
        row = acc.phase(name)
        if row is not None and row["work"] > 0:
            ours = acc.gaps["phase"].astype(object).fillna("")
            gaps = acc.gaps[(ours == "decode") | ours.str.startswith("decode.")]
            what = "the decode phase" if name == "decode" else "the decode steps"
            return Focus(what, gaps, int(row["idle_ns"]), int(row["busy_ns"]))
    idle, busy = int(acc.devices["idle_ns"].sum()), int(acc.devices["busy_ns"].sum())
    return Focus("the traced window", acc.gaps, idle, busy)


def headline(acc: Account) -> str:
    """Like "The GPU idles 88% of the decode phase: 93% of that waits for the host to launch"."""
    if acc.devices.empty:
        ranges = int((acc.phases["domain"] == HARNESS_DOMAIN).sum())
        return f"No GPU work in this trace: {ranges} phases with host time only"
    part = focus(acc)
    sentence = f"The GPU idles {part.idle_share:.0%} of {part.name}"
    by_cause = part.gaps.groupby("cause", observed=True)["dur_ns"].sum()
    if by_cause.sum() == 0:
        return sentence
    cause, share = str(by_cause.idxmax()), by_cause.max() / by_cause.sum()
    return f"{sentence}: {'nearly all' if share > 0.995 else f'{share:.0%}'} of that {_WAITS[cause]}"
