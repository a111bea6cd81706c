"""Flat numbers from an account, named as in results.db."""

from __future__ import annotations

import pandas as pd

from analysis.accounting.account import Account
from analysis.accounting.causes import CAUSE_COLUMNS, CAUSES, HOST_COLUMNS
from analysis.accounting.kernels import ATTENTION_COLUMNS
from analysis.accounting.phases import DECODE, DECODE_STEP, HARNESS_DOMAIN


def metrics(acc: Account) -> dict[str, float]:
    """Every number that the trace supports; what it can't tell is absent, never zero.

    Of the whole window, over all devices: idle_share, idle_share_host … idle_share_unknown (its parts by
    cause), gap_median_us, gap_p90_us, launch_gap_share (share of idle time that the host is to blame for: the
    causes host, sync, api and launch), kernels. The same per phase of the harness, as `decode.idle_share`,
    `decode.kernels` …; kernels_per_token from the decode steps.

    Attention by backend (see `analysis.accounting.kernels.attention_counts`; `other` is all but flash):
    attention_kernels.flash … of the window, decode.attention_kernels.flash … of the decode phase,
    attention_kernels.flash_per_step of a decode step. Absent where a graph was traced as a whole.
    """
    values: dict[str, float] = {}
    if len(acc.devices):
        window, idle = int(acc.devices["window_ns"].sum()), int(acc.devices["idle_ns"].sum())
        values["idle_share"] = idle / window
        values |= _by_cause(acc.devices[CAUSE_COLUMNS].sum(), window)
        values |= _gap_metrics(acc.gaps)
        values["kernels"] = float(acc.devices["kernels"].sum())
    for _, phase in acc.phases[acc.phases["domain"] == HARNESS_DOMAIN].iterrows():
        if phase["work"] > 0:
            values |= {f"{phase['name']}.{name}": value for name, value in _phase_metrics(phase).items()}
    step = acc.phase(DECODE_STEP)
    if step is not None and step["work"] > 0:
        values["kernels_per_token"] = float(step["kernels"] / step["count"])
    return values | _attention_metrics(acc)


def _attention_metrics(acc: Account) -> dict[str, float]:
    if acc.devices.empty or (acc.kernels["kind"] == "graph").any():
        return {}
    values = _by_backend(acc.devices[ATTENTION_COLUMNS].sum())
    decode, step = acc.phase(DECODE), acc.phase(DECODE_STEP)
    if decode is not None and decode["work"] > 0:
        values |= {f"decode.{name}": count for name, count in _by_backend(decode[ATTENTION_COLUMNS]).items()}
    if step is not None and step["work"] > 0:
        values["attention_kernels.flash_per_step"] = float(step["attention_flash"] / step["count"])
    return values


def _by_backend(counts: pd.Series) -> dict[str, float]:
    values = {
        f"attention_kernels.{str(name).removeprefix('attention_')}": float(n) for name, n in counts.items()
    }
    return values | {"attention_kernels.other": float(counts.sum() - counts["attention_flash"])}


def _by_cause(spent: pd.Series, total_ns: int) -> dict[str, float]:
    """Idle time by cause, as shares of all time and of the idle time."""
    idle = int(spent.sum())
    values = {
        f"idle_share_{cause}": float(spent[f"{cause}_ns"] / total_ns)
        for cause in CAUSES
        if spent[f"{cause}_ns"]
    }
    return values | ({"launch_gap_share": float(spent[HOST_COLUMNS].sum() / idle)} if idle else {})


def _gap_metrics(gaps: pd.DataFrame) -> dict[str, float]:
    inner = gaps.loc[(gaps["before_row"] >= 0) & (gaps["after_row"] >= 0), "dur_ns"]
    if inner.empty:
        return {}
    return {"gap_median_us": float(inner.median()) / 1e3, "gap_p90_us": float(inner.quantile(0.9)) / 1e3}


def _phase_metrics(phase: pd.Series) -> dict[str, float]:
    values = {"idle_share": float(phase["idle_share"]), "kernels": float(phase["kernels"])}
    values |= _by_cause(phase[CAUSE_COLUMNS], int(phase["busy_ns"] + phase["idle_ns"]))
    if phase["idle_ns"] > 0:
        values["gap_median_us"] = float(phase["gap_median_ns"]) / 1e3
        values["gap_p90_us"] = float(phase["gap_p90_ns"]) / 1e3
    return values
