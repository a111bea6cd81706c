"""What can be compared: recorded runs and traces, found on disk and checked for likeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.accounting.phases import DECODE_STEP
from analysis.comparison import records
from analysis.comparison.folders import FINISHED, Listed, in_words, listed
from analysis.comparison.records import WHAT
from analysis.errors import TraceError
from analysis.reading.source import RECORD, trace_at

ONE_HAS_WHOLE_GRAPHS = (
    "one trace has its CUDA graphs as a whole: kernels, and gaps between them, don't compare; its busy time "
    "includes those gaps"
)


class NotComparable(TraceError):
    """Two subjects that did not do the same work, or one that did not do all of it."""


@dataclass(frozen=True)
class Subject:
    """A run, or a trace alone.

    record: run.json, empty for a trace. measured: measure.json, empty if the run left none.
    trace: path of its export, or None. passed_over: of the newest finished run of a folder, the newer ones
    that did not finish, in words.
    """

    name: str
    path: Path
    trace: Path | None
    record: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    passed_over: Sequence[str] = ()

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.record.get("metrics", {}))

    @property
    def iterations(self) -> Sequence[Mapping[str, Any]]:
        """The timed iterations without a profiler."""
        return list(self.measured.get("iterations", []))

    @property
    def steps_per_iteration(self) -> float | None:
        """Decode steps that the host took part in, of a timed iteration; None if none was timed."""
        steps = [len(one["phases"].get(DECODE_STEP, [])) for one in self.iterations]
        return float(np.median(steps)) if steps else None

    @property
    def tokens_per_step(self) -> float | None:
        """Tokens that such a step gave, None if nobody counted them."""
        tokens = sum(one.get("counts", {}).get("tokens", 0) for one in self.iterations)
        steps = sum(len(one["phases"].get(DECODE_STEP, [])) for one in self.iterations)
        return tokens / steps if tokens and steps else None

    @property
    def workload(self) -> Mapping[str, Any]:
        return dict(self.measured.get("workload") or {})

    @property
    def sources(self) -> list[tuple[str, int]] | None:
        """(file name, window) of what was transcribed, None if unknown."""
        found = self.measured.get("transcripts")
        return None if found is None else [(Path(one["source"]).name, one["window"]) for one in found]

    def environment(self, *keys: str) -> Any:
        """A nested entry of the run's environment, None where it has none."""
        value: Any = self.record.get("environment", {})
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def find(path: Path) -> dict[str, Subject]:
    """The subjects at a path, by scope; a run or a trace alone is one. Raises TraceError.

    Of a folder of runs, <folder>/<utc>/ or <folder>/<scope>/<utc>/, the newest finished run of each scope.
    """
    if not path.exists():
        raise TraceError(f"{path}: no such file or folder", f"give {WHAT}")
    if not path.is_dir():
        return {path.name: Subject(_stem(path), path, path)}
    if (path / RECORD).exists():
        run = _run(path)
        return {run.record["scope"]: run}
    finished, others = listed(path)
    if not finished:
        newest = f"; the newest: {others[-1]}" if others else ""
        raise TraceError(f"{path} holds no finished run{newest}", f"give {WHAT}")
    return {scope: _newest(one, others, alone=len(finished) == 1) for scope, one in finished.items()}


def only(path: Path) -> Subject:
    """The one subject at a path; TraceError where a folder has several scopes."""
    found = find(path)
    if len(found) > 1:
        raise TraceError(
            f"{path} holds runs of {len(found)} scopes ({', '.join(found)})",
            f"give one of them: {path / next(iter(found))}",
        )
    return next(iter(found.values()))


def recorded_runs(*paths: Path) -> list[Subject]:
    """The run at each path, by names that differ where the runs do; TraceError for traces alone."""
    found = [only(path) for path in paths]
    if bare := next((one for one in found if not one.record), None):
        raise TraceError(
            f"{bare.path} is a file, not a run's folder", "traces are for: python -m analysis compare A B"
        )
    return _told_apart(found)


def groups(paths: Sequence[Path]) -> list[list[Subject]]:
    """What is compared with what: one group, or one per scope that all folders of several scopes have."""
    found = [find(path) for path in paths]
    if all(len(one) == 1 for one in found):
        return [_told_apart([next(iter(one.values())) for one in found])]
    several = [set(one) for one in found if len(one) > 1]
    shared = [
        scope for scope in next(one for one in found if len(one) > 1) if all(scope in one for one in several)
    ]
    single = {next(iter(one)) for one in found if len(one) == 1}
    scopes = [scope for scope in shared if not single or scope in single]
    if not scopes:
        listed = "; ".join(f"{path}: {', '.join(one)}" for path, one in zip(paths, found, strict=True))
        raise TraceError(f"these folders have no scope in common ({listed})", "give single runs to compare")
    pick = [[one.get(scope) or next(iter(one.values())) for one in found] for scope in scopes]
    return [_told_apart(group) for group in pick]


def check(a: Subject, b: Subject, *, force: bool) -> list[str]:
    """Warnings about what differs between two subjects, or can't be known.

    Other models or other audio raise NotComparable, or are warnings too with `force`.
    """
    wrong = _different_work(a, b)
    if wrong and not force:
        raise NotComparable(
            f"{a.name} and {b.name} did different work: {'; '.join(wrong)}",
            "compare runs of one model and audio, or add --force",
        )
    warnings = [f"not the same work, compared because of --force: {one}" for one in wrong]
    if not (a.record and b.record):
        bare = " and ".join(one.name for one in (a, b) if not one.record)
        return [
            *warnings,
            f"{bare}: a trace alone doesn't say which model, audio and versions were run; not checked",
        ]
    return warnings + _different_conditions(a, b)


def check_finished(*runs: Subject, force: bool) -> None:
    """NotComparable for a run that did not finish, or that stands for newer ones that did not; with `force`
    they are what `check` warns of."""
    for one in () if force else runs:
        if wrong := _unfinished(one):
            raise NotComparable(wrong, "run the scope again, or add --force")
        if one.passed_over:
            raise NotComparable(
                f"{one.path} is the newest finished run; a newer one did not finish: {one.passed_over[-1]}",
                f"give the run's folder itself, like {one.path}, or add --force",
            )


def check_traces(a: Subject, b: Subject, metrics: Sequence[str], *, force: bool) -> list[str]:
    """The same for metrics that come from the traces, which must have CUDA graphs in the same form."""
    if not metrics or not (a.trace and b.trace) or _whole_graphs(a.trace) == _whole_graphs(b.trace):
        return []
    if not force:
        raise NotComparable(
            f"{', '.join(metrics)}: of {a.name} and {b.name}, {ONE_HAS_WHOLE_GRAPHS}",
            "limit latency, which no trace is needed for, or add --force",
        )
    return [f"compared because of --force: {ONE_HAS_WHOLE_GRAPHS}"]


def _whole_graphs(trace: Path) -> bool:
    from analysis.reading.trace import Trace  # pandas takes long to import

    with Trace.open(trace) as opened:
        return opened.whole_graphs


def _different_work(a: Subject, b: Subject) -> list[str]:
    if not (a.record and b.record):
        return []
    found = _differences(_work(a), _work(b))
    same_device = a.record["device"] == b.record["device"]
    if not found and same_device and a.record["inputs"] != b.record["inputs"]:
        found.append("model or audio of the same name with other content, or another number of tokens")
    return found


def _work(subject: Subject) -> dict[str, Any]:
    sources = subject.sources
    return {
        "model": subject.record["model"],
        "audio": None if sources is None else sorted({source for source, _ in sources}),
        "seconds of audio": subject.workload.get("audio_s"),
    }


def _different_conditions(a: Subject, b: Subject) -> list[str]:
    warnings = [f"differs: {one}" for one in _differences(_conditions(a), _conditions(b))]
    warnings += [unfinished for one in (a, b) if (unfinished := _unfinished(one))]
    passed_over = dict.fromkeys([*a.passed_over, *b.passed_over])
    return warnings + [f"a newer run that did not finish was passed over: {one}" for one in passed_over]


def _unfinished(one: Subject) -> str:
    """That a run did not finish, as a sentence; empty if it did."""
    status = one.record["status"]
    return "" if status == FINISHED else f"{one.path} is no finished run ({in_words(status)})"


def _conditions(subject: Subject) -> dict[str, Any]:
    return {
        "machine": subject.environment("machine"),
        "device": subject.record["device"],
        "driver": subject.environment("gpu", "driver"),
        "power limit, mW": subject.environment("gpu", "power_limit_mw"),
        "python": subject.environment("python"),
        **(subject.environment("packages") or {}),
    }


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The facts known of both that differ, as "model: tiny and small"."""
    return [
        f"{name}: {_shown(a[name])} and {_shown(b[name])}"
        for name in a
        if a[name] is not None and b.get(name) is not None and a[name] != b[name]
    ]


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return f"{value[0]} and {len(value) - 1} more" if len(value) > 1 else str(value[0]) if value else "none"


def _newest(chosen: Listed, others: Sequence[Listed], *, alone: bool) -> Subject:
    newer = [str(one) for one in others if one.is_newer_than(chosen, alone=alone)]
    return replace(_run(chosen.folder), passed_over=newer)


def _run(folder: Path) -> Subject:
    record, measured, trace = records.record(folder), records.measured(folder), trace_at(folder)
    return Subject(record["scope"], folder, None if trace == folder else trace, record, measured)


def _told_apart(group: list[Subject]) -> list[Subject]:
    """Names that differ: the scope alone where it does, otherwise the run's id or the end of its path."""
    ids = [str(one.record.get("id") or one.name) for one in group]
    for names in ([one.name for one in group], ids, _endings(group)):
        if len(set(names)) == len(names):
            return [replace(one, name=new) for one, new in zip(group, names, strict=True)]
    return group


def _endings(group: Sequence[Subject]) -> list[str]:
    """The shortest endings of their paths that differ, without what follows the scope and is alike in all."""
    parts = [one.path.resolve().parts for one in group]
    while len({one[-1] for one in parts}) == 1 and parts[0][-1] != group[0].name and min(map(len, parts)) > 1:
        parts = [one[:-1] for one in parts]
    lengths = range(1, max(map(len, parts)) + 1)
    endings = (["/".join(one[-length:]) for one in parts] for length in lengths)
    return next((names for names in endings if len(set(names)) == len(names)), [one.name for one in group])


def _stem(path: Path) -> str:
    return path.name.split(".sqlite")[0]
