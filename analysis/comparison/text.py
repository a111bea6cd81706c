"""Comparisons and checks as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.comparison import numbers
from analysis.comparison.limits import FINE, NOISY, REGRESSION, Limit, Outcome, Side
from analysis.comparison.numbers import Change
from analysis.comparison.pairs import Comparison
from analysis.comparison.sides import TraceChanges
from analysis.comparison.subjects import Subject
from analysis.statistics import MIN_SAMPLES

_NAME_WIDTH = 12
_HEADING_WIDTH = 16  # of a subject's name; longer ones stand above the table
_WHOLE_FROM = 1000
_INTERVAL = "95% interval"
_STYLE = {FINE: "green", REGRESSION: "bold red", NOISY: "yellow"}
_VERDICT = {FINE: "fine", REGRESSION: "REGRESSION", NOISY: "too noisy to tell"}


def warning(text: str) -> Text:
    return Text(f"warning: {text}", style="yellow")


def judged(baseline: Subject, run: Subject) -> Text:
    """Which runs are held against each other; paths are not cut, however long."""
    lines = [f"{what} {_folder(one)}" for what, one in (("baseline:", baseline), ("run:     ", run))]
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")


def _folder(run: Subject) -> str:
    """Its path, and the id that it was recorded with if that is another: copies keep their id."""
    known = str(run.path.resolve()).endswith(f"/{run.record['id']}")
    return str(run.path) if known else f"{run.path} ({run.record['id']})"


def comparison(found: Comparison) -> Group:
    """The finding in a sentence, then the numbers that it rests on."""
    parts: list[RenderableType] = [Text(found.sentence, style="bold")]
    parts += [warning(one) for one in found.warnings] + [Text()]
    a, b = found.a.name, found.b.name
    if max(len(a), len(b)) > _HEADING_WIDTH:
        parts += [Text(f"A: {a}\nB: {b}"), Text()]
        a, b = "A", "B"
    if found.latencies:
        parts.append(_changes("Latency, without a profiler", "metric", a, b, found.latencies))
    if found.traces:
        parts += _traces(found.traces, a, b)
    return Group(*parts)


def _traces(traces: TraceChanges, a: str, b: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if traces.total:
        steps = " and ".join(str(n) for n in dict.fromkeys(traces.counts))
        title = f"Time per {traces.unit}, traced (over {steps} of them)"
        parts.append(_changes(title, "µs of", a, b, [traces.total, *traces.parts, *traces.others]))
    if traces.phases:
        parts.append(_changes("Phases, traced: busy and idle time of one", "µs of", a, b, traces.phases))
    for why in dict.fromkeys(traces.left_out.values()):
        phases = ", ".join(phase for phase, because in traces.left_out.items() if because == why)
        parts.append(
            Text(f"left out: {phases} ({'see above' if why == traces.reason else why})", style="dim")
        )
    if traces.left_out:
        parts.append(Text())
    if traces.kernels:
        parts.append(_kernels(traces, a, b))
    return parts


def _changes(title: str, what: str, a: str, b: str, changes: Sequence[Change]) -> Table:
    table = _table(title, [what], [a, b, "change", "", _INTERVAL], ["note"])
    for one in changes:
        if one.a.value == one.b.value == 0:
            continue
        table.add_row(
            Text(one.metric if one.unit else one.metric.removesuffix("_us")),
            *_values(one), number(one.delta.value, share=one.is_share, sign=True), _ratio(one),
            interval(one), note(one),
        )  # fmt: skip
    return table


def _kernels(traces: TraceChanges, a: str, b: str) -> Table:
    rest = traces.kernels_in_all - len(traces.kernels)
    title = f"Kernels whose time changed, µs per {traces.unit}"
    title += f" (the {len(traces.kernels)} largest changes of {traces.kernels_in_all})" if rest else ""
    table = _table(title, ["kernel", "shape"], ["calls", a, b, "change", _INTERVAL], fold=True)
    for one in traces.kernels:
        calls = " → ".join(number(count) for count in one.calls)
        change = number(one.time.delta.value, sign=True)
        times = (*_values(one.time), change, interval(one.time))
        table.add_row(Text(one.name), Text(one.shape), calls, *times)
    return table


def outcomes(found: Sequence[Outcome]) -> Table:
    """What was allowed, what was measured, and the verdict."""
    table = _table("", ["metric"], ["baseline", "run", "change", _INTERVAL, "limit"], ["verdict", "why"])
    for one in found:
        form, unit = _change_form(one), _unit(one.change)
        low, high = one.measured.low, one.measured.high
        between = "–" if low is None or high is None else f"{form(low)} to {form(high)}"
        table.add_row(
            one.change.metric, *(f"{value}{unit}" for value in _values(one.change)),
            form(one.measured.value), between, _limit(one.limit, form, unit),
            Text(_VERDICT[one.verdict], style=_STYLE[one.verdict]), _why(one, form),
        )  # fmt: skip
    return table


def _change_form(one: Outcome) -> Callable[[float], str]:
    """How changes are written: in % for a relative limit, else in points or the metric's unit."""
    if one.limit.relative:
        return _percent
    return lambda value: f"{number(value, share=one.change.is_share, sign=True)}{_unit(one.change)}"


def _unit(change: Change) -> str:
    """The unit behind a number; shares have theirs already."""
    unit = "" if change.is_share else numbers.unit(change.metric)
    return f" {unit}" if unit else ""


def _limit(limit: Limit, form: Callable[[float], str], unit: str) -> str:
    """As it was written, with the unit that it was taken in; plain numbers for shares as points."""
    plain = not limit.relative and not limit.text.lower().endswith("pt")
    text = limit.text
    if plain:
        text = form(limit.bound) if numbers.is_share(limit.metric) else f"{text}{unit}"
    return f"{'≤' if limit.side is Side.MAX else '≥'} {text}"


def number(value: float, *, share: bool = False, sign: bool = False) -> str:
    """A value as people read it: shares and rates as per cent (their differences as points)."""
    if share:
        return f"{value * 100:+.2f} pt" if sign else f"{value:.1%}"
    digits = ",.0f" if abs(value) >= _WHOLE_FROM else ",.4g"
    return format(value, f"+{digits}" if sign else digits)


def interval(change: Change) -> str:
    low, high = change.delta.low, change.delta.high
    if low is None or high is None:
        return "–"
    return " to ".join(number(limit, share=change.is_share, sign=True) for limit in (low, high))


def note(change: Change) -> str:
    """What makes the numbers weak: few repetitions, or values that are known to no better than 2%."""
    weak = [
        f"{side} ±{one.spread:.1%}"
        for side, one in (("A", change.a), ("B", change.b))
        if one.unstable and one.spread is not None
    ]
    if weak:
        return f"unstable: {', '.join(weak)}"
    if change.repetitions and change.delta.low is None:
        return f"n < {MIN_SAMPLES}: no interval"
    return "" if change.clear else "no clear change"


def _why(found: Outcome, form: Callable[[float], str]) -> str:
    """What the verdict rests on."""
    if found.noticeable is None:
        return _few(found.change)
    if found.verdict == NOISY:
        start = f"a change short of {form(found.noticeable)} drowns in the noise"
        return f"{start}: more iterations, or a wider limit"
    return f"noticed from {form(found.noticeable)} on"


def _few(change: Change) -> str:
    """Why a change has no interval."""
    if change.repetitions:
        one = f"one {change.repetitions.removesuffix('s')}"
        return one if change.delta.n == 1 else f"fewer than {MIN_SAMPLES} {change.repetitions}"
    return "no interval recorded" if numbers.is_latency(change.metric) else "no interval, the value decides"


def _values(change: Change) -> tuple[str, str]:
    a, b = (number(one.value, share=change.is_share) for one in (change.a, change.b))
    return a, b


def _percent(value: float) -> str:
    return f"{value:+.1%}" if math.isfinite(value) else "–"


def _ratio(change: Change) -> str:
    return "" if change.is_share else _percent(change.ratio.value)


def _table(
    title: str, names: Sequence[str], numbers: Sequence[str], notes: Sequence[str] = (), *, fold: bool = False
) -> Table:
    """On a narrow terminal intervals and notes wrap, and with `fold` names (of kernels) do; numbers and
    metrics never do."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in names:
        table.add_column(name, overflow="fold", min_width=_NAME_WIDTH, no_wrap=not fold)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=heading != _INTERVAL)
    for name in notes:
        table.add_column(name)
    return table
