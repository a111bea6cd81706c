"""Traces recorded on a GPU that come with the project, for machines that have none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from harness import mechanisms
from harness.environment import PROJECT
from harness.publish import PACKED_KERNELS, PACKED_METRICS, PACKED_TRACE
from harness.record import code_label, day

FOLDER = PROJECT / "results"


@dataclass(frozen=True)
class RecordedTrace:
    """A bundled trace: the start of what a published run recorded.

    note: what every figure and table made from it has to say; model: whose trace it is; metrics: those of the
    whole run, by flat name; sampled, kernels: the start of its recording with GPU metrics and what ncu
    measured, None if it has none.
    """

    trace: Path
    note: str
    model: str
    metrics: dict[str, float]
    sampled: Path | None = None
    kernels: Path | None = None


def find(cfg: DictConfig) -> RecordedTrace | None:
    """The newest published trace (results/<machine>/<scope>/<utc>/) of the mechanisms that `cfg` switches on.

    None if these were not recorded: another mechanism's gaps would say nothing about this one's.
    """
    wanted = mechanisms.of(cfg)
    traces = sorted(FOLDER.glob(f"*/*/*/{PACKED_TRACE}"), key=lambda trace: trace.parent.name)
    same = [t for t in traces if mechanisms.of(OmegaConf.load(t.parent / "config.yaml")) == wanted]
    if not same:
        return None
    return _of(same[-1])


def beside(trace: Path, scope: str) -> RecordedTrace | None:
    """The newest trace of a scope that was published with `trace`."""
    traces = sorted(trace.parents[2].glob(f"{scope}/*/{PACKED_TRACE}"), key=lambda trace: trace.parent.name)
    return _of(traces[-1]) if traces else None


def _of(trace: Path) -> RecordedTrace:
    run = json.loads((trace.parent / "run.json").read_text())
    git = run["environment"]["git"]
    parts = run["environment"]["machine"], day(run["started_utc"]), code_label(git["commit"], git["dirty"])
    packed = [trace.with_name(name) for name in (PACKED_METRICS, PACKED_KERNELS)]
    sampled, kernels = (path if path.exists() else None for path in packed)
    note = f"recorded on {', '.join(parts)}"
    return RecordedTrace(trace, note, run["model"], run["metrics"], sampled, kernels)
