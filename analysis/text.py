"""The account as tables for a terminal, and for report.txt."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSE_COLUMNS, CAUSES
from analysis.headline import headline

_TOP_KERNELS = 15
_NAME_WIDTH = 12

_MEANING = {
    "host": "the launching thread was in its own code",
    "sync": "it was blocked in a synchronisation or a copy",
    "api": "it was in another CUDA call",
    "launch": "in the launch call, or on the way to the device",
    "dependency": "launched in time, waited for an event or a stream",
    "graph": "between nodes of one CUDA graph",
    "dispatch": "launched in time, back to back in one stream",
    "profiler": "the profiler's own work",
    "unknown": "the trace can't tell",
}


def tables(acc: Account) -> Group:
    """Everything worth reading about a trace, the finding first."""
    parts: list[RenderableType] = [Text(headline(acc), style="bold")]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in acc.warnings]
    parts.append(Text())
    if len(acc.devices):
        parts += [_devices(acc), _causes(acc)]
    if len(acc.phases):
        parts.append(_phases(acc))
    if len(acc.kernels):
        parts.append(_kernels(acc))
    return Group(*parts)


def _devices(acc: Account) -> Table:
    table = _table(
        "Devices", ["device"], ["window ms", "busy ms", "idle ms", "idle", "kernels", "other work"]
    )
    for row in acc.devices.to_dict("records"):
        table.add_row(
            f"{row['device']} {row['name']}", _ms(row["window_ns"]), _ms(row["busy_ns"]), _ms(row["idle_ns"]),
            _percent(row["idle_share"]), f"{row['kernels']:,}", f"{row['work'] - row['kernels']:,}",
        )  # fmt: skip
    return table


def _causes(acc: Account) -> Table:
    """Each gap is split among its causes; `mostly` counts the gaps in which a cause has the largest part."""
    table = _table("Idle time by cause", ["cause", "meaning"], ["idle ms", "of idle", "gaps, mostly"])
    spent = acc.devices[CAUSE_COLUMNS].sum()
    mostly = acc.gaps["cause"].value_counts()
    for cause, column in zip(CAUSES, CAUSE_COLUMNS, strict=True):
        if spent[column]:
            table.add_row(
                cause, _MEANING[cause], _ms(spent[column]), _percent(spent[column] / spent.sum()),
                f"{mostly.get(cause, 0):,}",
            )  # fmt: skip
    return table


def _phases(acc: Account) -> Table:
    table = _table(
        "Phases (NVTX ranges; work belongs to the range that its launch call falls in)",
        ["phase"],
        ["count", "host ms", "busy ms", "idle ms", "idle", "kernels", "gap median µs", "p90 µs"],
    )
    for row in acc.phases.to_dict("records"):
        name = f"{row['domain']}:{row['name']}" if row["domain"] else row["name"]
        table.add_row(
            Text(name), f"{row['count']:,}", _ms(row["wall_ns"]), _ms(row["busy_ns"]), _ms(row["idle_ns"]),
            _percent(row["idle_share"]), f"{row['kernels']:,}",
            _us(row["gap_median_ns"]), _us(row["gap_p90_ns"]),
        )  # fmt: skip
    return table


def _kernels(acc: Account) -> Table:
    shown = acc.kernels.head(_TOP_KERNELS)
    rest = (
        f", the {_TOP_KERNELS} most expensive of {len(acc.kernels)}" if len(acc.kernels) > len(shown) else ""
    )
    table = _table(
        f"Kernels and copies{rest}", ["name", "phases"], ["count", "total ms", "median µs", "of busy"]
    )
    for row in shown.to_dict("records"):
        table.add_row(
            Text(row["name"]), Text(", ".join(row["phases"])), f"{row['count']:,}", _ms(row["total_ns"]),
            _us(row["median_ns"]), _percent(row["busy_share"]),
        )  # fmt: skip
    return table


def _table(title: str, names: list[str], numbers: list[str]) -> Table:
    """Names wrap on a narrow terminal, numbers never do."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", min_width=_NAME_WIDTH)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _ms(ns: float) -> str:
    return "–" if pd.isna(ns) else f"{ns / 1e6:,.2f}"


def _us(ns: float) -> str:
    return "–" if pd.isna(ns) else f"{ns / 1e3:,.1f}"


def _percent(share: float) -> str:
    return "–" if pd.isna(share) else f"{share:.1%}"
