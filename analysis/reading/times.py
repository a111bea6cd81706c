"""Rows whose times can't be true: they are left out, and counted by what is wrong with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from analysis.engine.intervals import Ints
from analysis.reading.export import Export
from analysis.reading.pages import MISSING

NO_TIME = "without a start or an end"
BACKWARDS = "that end before they begin"
TOO_LONG = "that last longer than the recording"

# Later than the year 2100 even on a clock that counts from 1970: garbage, which would overflow differences.
_BEYOND_NS = 1 << 62
# Far more than the clocks of device and host ever disagree by, so that no true row is taken for a false one.
_SLACK_NS = 60 * 10**9
# A recording that doesn't say how long it was: nsys keeps all events of a recording in one file, and nobody
# has recorded for a month.
_MONTH_NS = 30 * 24 * 3600 * 10**9


@dataclass
class LeftOut:
    """Of `rows` rows of a kind ("kernel", "call"), how many were left out, by what is wrong with them."""

    kind: str
    rows: int = 0
    flaws: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.flaws.total()

    def __str__(self) -> str:
        """Like "3 that end before they begin, 1 without a start or an end"."""
        return ", ".join(f"{count:,} {flaw}" for flaw, count in self.flaws.most_common())


def longest_ns(export: Export) -> int:
    """What nothing in this recording can have lasted longer than, ns.

    A length and no point in time: `nsys export --ts-normalize` moves all times, but no length.
    """
    recorded = [ns for (ns,) in export.select("ANALYSIS_DETAILS", "duration") if isinstance(ns, int)]
    return max(recorded) + _SLACK_NS if recorded and max(recorded) > 0 else _MONTH_NS


def with_times(chunk: Ints, start: int, longest: int) -> tuple[Ints, Counter[str]]:
    """The rows of a chunk [columns, rows] with times that can be, and how many others have which flaw.

    start: the column of starts, before that of ends. longest: see `longest_ns`.
    """
    begins, ends = chunk[start], chunk[start + 1]
    sound = (begins > -_BEYOND_NS) & (ends < _BEYOND_NS) & (ends >= begins) & (ends - begins <= longest)
    if sound.all():
        return chunk, Counter()
    none = (begins == MISSING) | (ends == MISSING)
    backwards = ~none & (ends < begins)
    counts = {NO_TIME: none.sum(), BACKWARDS: backwards.sum(), TOO_LONG: (~sound & ~none & ~backwards).sum()}
    return chunk[:, sound], Counter({flaw: int(count) for flaw, count in counts.items() if count})
