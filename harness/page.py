"""report.html: a run, or a sweep, as one page for a browser."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from analysis.units import counted
from harness import details, digest, recorded, report
from harness.errors import UserError
from harness.footer import notes, shared
from harness.metrics import ERROR_RATES, METRICS_OVERHEAD, OVERHEAD
from harness.phases import DECODE, ITER
from harness.publish import PAGE
from harness.record import Record, code_label, day, days
from harness.results import tokens_in_words
from harness.verdict import found_in_words, held_in_words, outcome, shown

# Like pandas behind it, not before there is something to show.
if TYPE_CHECKING:
    from analysis.html import Hypothesis, Report, Run, Traced


def of_run(record: Record, outputs: Path, detail: Traced | None) -> Report:
    """A run's page. detail: its trace, or the recorded one that stands in for it."""
    from analysis import html

    bundled = record.capture["recorded"]
    compare_with = _config(outputs / record.id).get("compare_with")
    if detail and not bundled:
        detail = _of_its_run(detail, record)
    other, reference = None, None
    warnings = _too_few({record.scope: record})
    try:
        if other := _compared(record, outputs):
            reference = _detail(other, outputs, other.scope)
        elif bundled and compare_with:
            reference = _recorded_beside(recorded.FOLDER / bundled["trace"], compare_with)
    except UserError as error:  # the other run is damaged, this one is not
        warnings.append(f"{compare_with} is not shown beside it: {error}")
    headline = detail.headline if detail else _without_trace(record)
    if bundled:
        where = bundled["note"].split(",")[0]
        headline = f"{where[0].upper()}{where[1:]}: {headline[0].lower()}{headline[1:]}"
    runs = [run_row(record, record.scope)]
    if other:
        runs.insert(0, run_row(other, other.scope, f"../../{other.id}/{PAGE}", reference=True))
    return html.Report(
        title=record.scope,
        subtitle=_subtitle(record),
        headline=headline,
        bars=[one.bar for one in (reference, detail) if one],
        traced=[detail] if detail else [],
        runs=runs,
        hypotheses=[_hypothesis(record, outputs, record.scope)] if record.verdict else [],
        environment=environment(record, outputs / record.id),
        notes=notes({record.scope: record}),
        warnings=warnings,
        figures=_figures(record, detail),
    )


def of_sweep(records: Sequence[Record], labels: Sequence[str], outputs: Path, links: str) -> Report:
    """The page of several runs, each compared with the first. links: from the page's folder to `outputs`."""
    from analysis import html
    from analysis.headline import fastest

    by_label = dict(zip(labels, records, strict=True))
    traced = [_detail(record, outputs, label) for label, record in by_label.items()]
    found = [one for one in traced if one]
    machine = records[-1].environment["machine"]
    return html.Report(
        title=", ".join(labels),
        subtitle=_subtitle(*records),
        headline=f"On {machine}, {fastest(*_times(by_label))}",
        bars=[one.bar for one in found],
        traced=found,
        runs=[run_row(record, label, f"{links}{record.id}/{PAGE}") for label, record in by_label.items()],
        hypotheses=[
            _hypothesis(record, outputs, label, f"{links}{record.id}/{PAGE}")
            for label, record in by_label.items()
            if record.verdict
        ],
        environment=shared([environment(record, outputs / record.id) for record in records]),
        notes=notes(by_label),
        warnings=_too_few(by_label),
    )


def subject_of(record: Record, folder: Path, label: str) -> digest.Subject:
    """A run as the subject of its own trace."""
    names = [record.capture[kind] for kind in ("metrics", "kernels")]
    sampled, kernels = (folder / name if name else None for name in names)
    return digest.Subject(label, record.metrics.get("ms_per_token"), "", sampled, kernels)


def recorded_subject(label: str, bundled: recorded.RecordedTrace) -> digest.Subject:
    """A recorded trace as a subject: the latency is that of the whole run that it is the start of."""
    note = f"{bundled.note}, the first window"
    per_token = bundled.metrics.get("ms_per_token")
    return digest.Subject(label, per_token, note, bundled.sampled, bundled.kernels)


def run_row(record: Record, label: str, href: str = "", reference: bool = False) -> Run:
    """A run's row in the table of runs."""
    from analysis.html import Run

    tokens = "reference" if reference else tokens_in_words(record.tokens_match)
    where = f"{record.model}, {record.environment['machine']}, {day(record.started_utc)}"
    return Run(label, record.metrics, tokens, href, where)


def environment(record: Record, folder: Path) -> list[tuple[str, str]]:
    """What a run was made on, with and from, as terms and values."""
    where, gpu, config = record.environment, record.environment["gpu"], _config(folder)
    cpu, packages = where["cpu"], where["packages"]
    measure, trace = config.get("measure", {}), config.get("trace", {})
    later = record.analysed
    about = {
        "Machine": where["machine"],
        "GPU": gpu
        and f"{gpu['name']}, {_gib(gpu['memory_bytes'])}, driver {gpu['driver']}, CUDA "
        f"{(gpu['cuda'] or 0) // 1000}.{(gpu['cuda'] or 0) % 1000 // 10}",
        "CPU": f"{cpu['model']}, {cpu['cores']} cores, {_gib(cpu['memory_bytes'])}",
        "System": f"{where['os']}, Python {where['python']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in packages.items() if version),
        "Code": record.code,
        "Date": f"{day(record.started_utc)} ({record.started_utc})",
        "Analysed again": later and f"{day(later['utc'])}, {code_label(later['commit'], later['dirty'])}",
        "Model": record.model,
        "Audio": Path(str(config.get("audio", {}).get("path", ""))).name,
        "Command": shlex.join(Path(word).name if word.startswith("/") else word for word in record.command),
        "Measured": measure and _often(measure),
        "Traced": trace and record.capture["command"] and _often(trace),
        "Profiler": record.capture["backend"],
        "Profiler's cost": OVERHEAD in record.metrics
        and f"a token takes {report.longer(record.metrics[OVERHEAD])} while traced",
        "GPU metrics": METRICS_OVERHEAD in record.metrics
        and f"recorded apart, with tokens that take {report.longer(record.metrics[METRICS_OVERHEAD])}",
    }
    return [(term, str(value)) for term, value in about.items() if value]


def _often(run: Mapping[str, Any]) -> str:
    return f"{counted(run['iterations'], 'iteration')} after {run['warmup']} of warm-up"


def _too_few(by_label: Mapping[str, Record]) -> list[str]:
    """A warning of latencies that nobody knows the noise of."""
    from analysis.statistics import TOO_FEW

    times, intervals = _times(by_label)
    short = [label for label in times if label not in intervals]
    return [f"{', '.join(short)}: {TOO_FEW} their latencies are"] if short else []


def _hypothesis(record: Record, outputs: Path, label: str, href: str = "") -> Hypothesis:
    """What a run was to show, and whether it did."""
    from analysis.html import Expectation, Hypothesis

    expectations = [
        Expectation(row["metric"], row["expect"], found_in_words(row), row["held"], held_in_words(row))
        for row in record.verdict
    ]
    claim = _config(outputs / record.id).get("hypothesis", {}).get("claim", "")
    tokens = tokens_in_words(record.tokens_match)
    return Hypothesis(label, claim, expectations, outcome(record.verdict), tokens, href)


def _detail(record: Record, outputs: Path, label: str) -> Traced | None:
    """What is kept of a run's trace."""
    found = details.load(outputs / record.id, label)
    return found if found is None or record.capture["recorded"] else _of_its_run(found, record)


def _of_its_run(detail: Traced, record: Record) -> Traced:
    """The same with what its run says: how well the time of a token is known, and how many tokens an
    iteration has. A bar is per token then where a step is not one: the device repeats the steps of a graph
    by itself, or a round gives several."""
    bar, per_round = detail.bar, record.metrics.get("tokens_per_round", 1.0)
    if between := _times({"": record})[1].get(""):
        bar = replace(bar, unprofiled_interval=between)
    counts = {phase.name: phase.count for phase in detail.phases if phase.kernels}
    tokens = round(record.metrics.get("tokens", 0.0) * counts.get(ITER, 0))
    if tokens and DECODE in counts and not (bar.tokens and per_round == 1.0):
        bar = replace(bar, units=tokens, tokens=True)
    return replace(detail, bar=bar)


def _figures(record: Record, detail: Traced | None) -> dict[str, str]:
    """The few numbers on top; where they are of two machines, each says of which."""
    from analysis import html

    bar, bundled = detail.bar if detail else None, record.capture["recorded"]
    if not bundled:
        return html.figures(bar, record.metrics)
    there = {name: value for name, value in bundled["metrics"].items() if name not in ERROR_RATES}
    where = bundled["note"].split(",")[0]
    return {f"{what} ({where})": value for what, value in html.figures(bar, there).items()} | {
        f"{what} (this machine, {record.model})": value
        for what, value in html.figures(None, record.metrics).items()
    }


def _times(records: Mapping[str, Record]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Times of a token, and their 95% intervals, by label; those that are known."""
    known = {label: r.metrics for label, r in records.items() if "ms_per_token" in r.metrics}
    limits = ("ms_per_token.low", "ms_per_token.high")
    intervals = {label: (m[limits[0]], m[limits[1]]) for label, m in known.items() if m.keys() >= set(limits)}
    return {label: m["ms_per_token"] for label, m in known.items()}, intervals


def _compared(record: Record, outputs: Path) -> Record | None:
    run = (record.tokens_match or {}).get("run")
    return Record.load(outputs / run) if run and (outputs / run / "run.json").exists() else None


def _recorded_beside(trace: Path, scope: str) -> Traced | None:
    """The trace of another scope that was recorded with this one."""
    found = recorded.beside(trace, scope)
    return digest.detail(found.trace, recorded_subject(scope, found)) if found else None


def _without_trace(record: Record) -> str:
    machine, per_token = record.environment["machine"], record.metrics.get("ms_per_token")
    if per_token is None:
        return f"{record.scope} on {machine}"
    return f"A token takes {shown('ms_per_token', per_token)} on {machine}"


def _subtitle(*records: Record) -> str:
    def every(values: Iterable[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    parts = [
        every(record.environment["machine"] for record in records),
        every(record.model for record in records),
        days(record.started_utc for record in records),
        every(record.code for record in records),
    ]
    return " · ".join(parts)


def _config(folder: Path) -> Mapping[str, Any]:
    return OmegaConf.load(folder / "config.yaml")  # type: ignore[return-value]


def _gib(size: float | None) -> str:
    return f"{size / 2**30:.0f} GiB" if size else "memory unknown"
