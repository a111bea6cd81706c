"""Flat numbers from an account, named as in results.db."""

from __future__ import annotations

import pandas as pd

from analysis.accounting import Account
from analysis.phases import HARNESS_DOMAIN

STEP = "decode.step"


def metrics(acc: Account) -> dict[str, float]:
    """Every number that the trace supports; what it can't tell is absent, never zero.

    Of the whole window, over all devices: idle_share, gap_median_us, gap_p90_us, launch_gap_share (share of
    idle time in gaps of cause `launch`), kernels. The same per phase of the harness, as
    `decode.idle_share`, `decode.kernels` …; kernels_per_token from the decode steps.
    """
    values: dict[str, float] = {}
    if len(acc.devices):
        window, idle = int(acc.devices["window_ns"].sum()), int(acc.devices["idle_ns"].sum())
        values["idle_share"] = idle / window
        values |= _gap_metrics(acc.gaps)
        values["kernels"] = float(acc.devices["kernels"].sum())
    for _, phase in acc.phases[acc.phases["domain"] == HARNESS_DOMAIN].iterrows():
        if phase["work"] > 0:
            values |= {f"{phase['name']}.{name}": value for name, value in _phase_metrics(phase).items()}
    step = acc.phase(STEP)
    if step is not None and step["work"] > 0:
        values["kernels_per_token"] = float(step["kernels"] / step["count"])
    return values


def _gap_metrics(gaps: pd.DataFrame) -> dict[str, float]:
    idle = int(gaps["dur_ns"].sum())
    if idle == 0:
        return {}
    inner = gaps.loc[gaps["cause"] != "edge", "dur_ns"]
    launch = int(gaps.loc[gaps["cause"] == "launch", "dur_ns"].sum())
    values = {"launch_gap_share": launch / idle}
    if len(inner):
        values["gap_median_us"] = float(inner.median()) / 1e3
        values["gap_p90_us"] = float(inner.quantile(0.9)) / 1e3
    return values


def _phase_metrics(phase: pd.Series) -> dict[str, float]:
    values = {"idle_share": float(phase["idle_share"]), "kernels": float(phase["kernels"])}
    if phase["idle_ns"] > 0:
        values["launch_gap_share"] = float(phase["launch_gap_ns"] / phase["idle_ns"])
        values["gap_median_us"] = float(phase["gap_median_ns"]) / 1e3
        values["gap_p90_us"] = float(phase["gap_p90_ns"]) / 1e3
    return values
