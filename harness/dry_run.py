"""dry_run: what a run would call."""

from __future__ import annotations

import shlex

from rich.console import Console

from harness.plan import Plan
from harness.record import utc_now


def show_commands(plan: Plan, out: Console) -> None:
    """The exact command lines of all children, and what a trace here will lack; nothing is written."""
    folder = plan.outputs / plan.scope / utc_now()
    out.print(f"measure ({plan.device}, no profiler):", markup=False)
    out.print(shlex.join(plan.measure_command(folder)), soft_wrap=True, markup=False, highlight=False)
    if traced := plan.trace_command(folder):
        out.print(f"trace ({plan.device}, capture={plan.capture.name}):", markup=False)
        out.print(shlex.join(traced), soft_wrap=True, markup=False, highlight=False)
    else:
        out.print("capture=none: nothing is traced")
    if sampled := plan.sample_command(folder):
        out.print(f"GPU metrics ({plan.device}, capture={plan.capture.name}):", markup=False)
        out.print(shlex.join(sampled), soft_wrap=True, markup=False, highlight=False)
    if replayed := plan.replay_command(folder):
        out.print(f"kernels of one decode step ({plan.device}, capture={plan.capture.name}):", markup=False)
        out.print(shlex.join(replayed), soft_wrap=True, markup=False, highlight=False)
    for note in plan.capture.notes(plan.device):
        out.print(f"note: {note}", markup=False)
