"""Numbers as people read them."""

from __future__ import annotations

import math


def duration(ns: float, digits: int = 2) -> str:
    """A time in the unit that suits it, like 320 ns, 25 µs or (with three digits) 13.8 ms."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size * 0.9995:
            return f"{significant(ns / size, digits)} {unit}"
    return f"{ns:.0f} ns"


def significant(value: float, digits: int = 3) -> str:
    """A number with this many digits, whole digits kept: 6.91, 746, 12,294; with one less below 1: 0.93, and
    0.0042, for what is more than nothing is never 0.00."""
    if 0 < value < 0.1:
        return f"{value:.{digits - 2 - math.floor(math.log10(value))}f}"
    whole = len(str(int(value))) if value >= 1 else 1
    return f"{value:,.{max(digits - whole, 0)}f}"


def counted(count: int, what: str) -> str:
    """A number of things: "1 iteration", "1,200 iterations"."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def percent(share: float) -> str:
    """A share in per cent, with a decimal below 2%: 0.0042 is "0.4%", 0.127 "13%"; never 0 if it is more."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.0%}" if share >= 0.02 or share == 0 else f"{share:.1%}"
