"""A Report as one HTML file that needs nothing else: no network, no font, no script from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.accounting.causes import CAUSES
from analysis.html import charts
from analysis.html.breakdown import BUSY, Breakdown, difference
from analysis.html.view import Report
from analysis.palette import CAUSE_COLOUR, CAUSE_LABEL
from analysis.statistics import unstable_remark
from analysis.units import duration, significant

_HERE = Path(__file__).parent
_ABSENT = "–"
_PART_LABEL = {BUSY: "the device works", **CAUSE_LABEL}


def render(report: Report) -> str:
    """The page. Names from traces are text in it, whatever they contain."""
    some_tokens = any(bar.tokens for bar in report.bars)
    style, script = ((_HERE / name).read_text() for name in ("style.css", "sort.js"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            parts=[BUSY, *(c for c in CAUSES if any(bar.parts_ns.get(c) for bar in report.bars))],
            labels=_PART_LABEL,
            colours=CAUSE_COLOUR,
            in_tokens=bool(report.bars) and all(bar.tokens for bar in report.bars),
            any_tokens=some_tokens,
            each="per token" if some_tokens else "in all",
            whole_graphs=[bar for bar in report.bars if bar.graphs],
            longest_ms=max((max(bar.ms(), bar.unprofiled_ms or 0) for bar in report.bars), default=0.0),
            explained=[difference(bar, report.bars[0]) for bar in report.bars[1:]],
            roofline=charts.roofline,
            dram=charts.dram,
            style=style,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def write(path: Path, report: Report) -> Path:
    """Write the page to `path`, whose folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(report), encoding="utf-8")
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": lambda ns: _ABSENT if pd.isna(ns) else _unbroken(duration(float(ns))),
        "unbroken": _unbroken,
        "ms": lambda ns: _ABSENT if pd.isna(ns) else f"{ns / 1e6:,.2f}",
        "percent": lambda share: _ABSENT if pd.isna(share) else f"{share:.1%}",
        "significant": lambda value: _ABSENT if pd.isna(value) else significant(float(value)),
        "stacked": _stacked,
        "count": lambda n: f"{n:,.0f}" if n >= 1 else significant(n),
        "graphs": lambda bar: f"{bar.graphs:,} graph{'s' if bar.graphs > 1 else ''}",
    }
    environment.globals |= {
        "interval": _interval,
        "unstable": unstable_remark,
        "part_share": _part_share,
        "absent": _ABSENT,
    }
    environment.tests["known"] = lambda value: value is not None and not pd.isna(value)
    return environment


def _unbroken(text: str) -> str:
    """The text with its numbers and their units never on two lines."""
    return re.sub(r"(?<=\d) (?=(ns|µs|ms|s)\b)", "\N{NO-BREAK SPACE}", text)


def _stacked(parts_ns: Mapping[str, int]) -> list[tuple[str, float, float, int]]:
    """Name, start and width in per cent, and length in ns of each part that is there."""
    total, reached, placed = max(sum(parts_ns.values()), 1), 0, []
    for name, ns in parts_ns.items():
        if ns > 0:
            placed.append((name, round(100 * reached / total, 3), round(100 * ns / total, 3), ns))
        reached += ns
    return placed


def _part_share(bar: Breakdown, part: str) -> float:
    return bar.parts_ns[part] / max(bar.total_ns, 1)


def _interval(metrics: Mapping[str, float], name: str) -> str:
    """A median's 95% interval, or its quartiles where it has none."""
    for low, high in (("low", "high"), ("p25", "p75")):
        if f"{name}.{low}" in metrics and f"{name}.{high}" in metrics:
            return f"{significant(metrics[f'{name}.{low}'])} to {significant(metrics[f'{name}.{high}'])}"
    return ""
