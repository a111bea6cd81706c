"""Flat numbers from an account, named as in results.db."""

from __future__ import annotations

import pandas as pd

from analysis.accounting import Account
from analysis.kernels import ATTENTION_COLUMNS
from analysis.phases import DECODE_STEP, HARNESS_DOMAIN


def metrics(acc: Account) -> dict[str, float]:
    """Every number that the trace supports; what it can't tell is absent, never zero.

    Of the whole window, over all devices: idle_share, gap_median_us, gap_p90_us, launch_gap_share (share of
    idle time in gaps of cause `launch`), kernels. The same per phase of the harness, as
    `decode.idle_share`, `decode.kernels` …; kernels_per_token from the decode steps.

    Attention by backend (see `analysis.kernels.attention_backend`; `other` is all but flash):
    attention_kernels.flash … of the window, decode.attention_kernels.flash … of the decode phase,
    attention_kernels.flash_per_step of a decode step. Absent where a graph was traced as a whole.
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
    step = acc.phase(DECODE_STEP)
    if step is not None and step["work"] > 0:
        values["kernels_per_token"] = float(step["kernels"] / step["count"])
    return values | _attention_metrics(acc)


def _attention_metrics(acc: Account) -> dict[str, float]:
    if acc.devices.empty or (acc.kernels["kind"] == "graph").any():
        return {}
    values = _by_backend(acc.devices[ATTENTION_COLUMNS].sum())
    decode, step = acc.phase("decode"), acc.phase(DECODE_STEP)
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
