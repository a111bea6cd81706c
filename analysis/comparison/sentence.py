"""What a comparison found, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.comparison.numbers import Change
from analysis.comparison.sides import TraceChanges
from analysis.latency import PHASES
from analysis.units import significant

_HEADLINES = {"ms_per_token": "per token", "total_ms": "per iteration"}
_CAUSES_SAID = 3
_US_PER_MS = 1000
_WORTH_SAYING = 0.05  # of the change


def sentence(
    a: str, b: str, latencies: Sequence[Change], traces: TraceChanges | None, *, contradicted: bool = False
) -> str:
    """Like "B is 7.1x faster per token than A (6.84 → 0.964 ms); of the time saved per decode step, 97% is
    idle time that went away (66% `host`, 32% `launch`)".

    Where whole iterations tell another story than their tokens, it goes on with them. `contradicted` traces
    (see `profiling`) say nothing about the time saved.
    """
    by_name = {one.metric: one for one in latencies}
    metric = next((name for name in _HEADLINES if name in by_name), None)
    total = traces.total if traces and traces.says_which_is_faster else None
    speed = by_name[metric] if metric else total
    if speed is None and traces and traces.reason:
        return f"These traces of {a} and {b} don't say which is faster: {traces.reason}"
    if speed is None:
        return f"{b} and {a} have no time in common"
    per = _HEADLINES[metric] if metric else f"per {traces.unit if traces else 'repetition'} (traced)"
    iteration = _iteration(b, speed, by_name)
    if not speed.clear:
        upper = f"{per[0].upper()}{per[1:]}"
        return f"{upper}, no difference between {b} and {a} can be told: {_interval(speed)}{iteration}"
    said = f"{b} is {_factor(speed)} {per} than {a} ({_times(speed)}){iteration}"
    alike = total is not None and total.clear and (total.delta.value < 0) == (speed.delta.value < 0)
    if traces and total and alike and traces.split and not contradicted:
        said += f"; {_where(traces, total.delta.value)}"
    return said


def _iteration(b: str, speed: Change, by_name: Mapping[str, Change]) -> str:
    """What whole iterations say, where tokens don't or say the opposite; "" otherwise."""
    whole = by_name.get("total_ms")
    if whole is None or whole is speed or not whole.clear:
        return ""
    if speed.clear and (speed.delta.value < 0) == (whole.delta.value < 0):
        return ""
    said = f"; a whole iteration of {b} is {_factor(whole)} ({_times(whole)})"
    changes = {name: by_name[f"{name}_ms"] for name in PHASES if f"{name}_ms" in by_name}
    sign = 1 if whole.delta.value > 0 else -1
    largest = max(changes, key=lambda name: sign * changes[name].delta.value, default=None)
    if largest is None or not changes[largest].clear:
        return said
    # Other phases may have made up for some of it, so what counts is its share of all that went this way.
    same_way = sum(max(sign * one.delta.value, 0.0) for one in changes.values())
    most = sign * changes[largest].delta.value > max(same_way, abs(whole.delta.value)) / 2
    return f"{said}, most of it in {largest}" if most else said


def _where(traces: TraceChanges, total_us: float) -> str:
    """What the traces say the saved or added time was: in shares, if it is the sum of its parts; if some grew
    while others shrank, in µs."""
    busy_us, *by_cause = (part.delta.value for part in traces.parts)
    causes = [one.metric.removesuffix("_us") for one in traces.parts[1:]]
    idle_us = sum(by_cause)
    largest = sorted(zip(causes, by_cause, strict=True), key=lambda one: -abs(one[1]))[:_CAUSES_SAID]
    said = [(cause, us) for cause, us in largest if abs(us) > _WORTH_SAYING * abs(total_us)]
    if not all(-_WORTH_SAYING <= us / total_us <= 1 for us in (busy_us, idle_us, *by_cause)):
        shown = ", ".join(f"{us:+,.4g} `{cause}`" for cause, us in said)
        parts = f"GPU work {busy_us:+,.4g} µs, idle time {idle_us:+,.4g} µs"
        return f"per {traces.unit}, {parts}{f' ({shown})' if shown else ''}"
    saved, gone = ("saved", "that went away") if total_us < 0 else ("added", "that came")
    begin = f"of the time {saved} per {traces.unit}, "
    if abs(busy_us) > abs(idle_us):
        return f"{begin}{busy_us / total_us:.0%} is GPU work {gone}"
    shown = ", ".join(f"{us / total_us:.0%} `{cause}`" for cause, us in said)
    return f"{begin}{idle_us / total_us:.0%} is idle time {gone} ({shown})"


def _times(speed: Change) -> str:
    x, y = speed.a.value, speed.b.value
    unit = "µs" if speed.metric.endswith("_us") else "ms"
    if unit == "µs" and min(x, y) >= _US_PER_MS:
        x, y, unit = x / _US_PER_MS, y / _US_PER_MS, "ms"
    return " → ".join(f"{one:.3g}" if one < 100 else significant(one) for one in (x, y)) + f" {unit}"


def _factor(speed: Change) -> str:
    """Like "1.02x faster"."""
    x, y = speed.a.value, speed.b.value
    ratio = max(x, y) / min(x, y) if min(x, y) > 0 else float("inf")
    times = f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"
    return f"{times} {'faster' if y < x else 'slower'}"


def _interval(change: Change) -> str:
    ratio = change.ratio
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:+.1%}"
    return f"{ratio.value:+.1%}, 95% interval {ratio.low:+.1%} to {ratio.high:+.1%}"
