"""report.html: a run, or a sweep, as one page for a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from harness import details, digest, recorded, report
from harness.errors import UserError
from harness.metrics import METRICS_OVERHEAD, OVERHEAD
from harness.publish import PAGE
from harness.record import Record, code_label, day, days
from harness.results import tokens_in_words
from harness.verdict import shown

# Like pandas behind it, not before there is something to show.
if TYPE_CHECKING:
    from analysis.html import Report, Run, Traced


def of_run(record: Record, outputs: Path, detail: Traced | None, compare_with: str | None) -> Report:
    """A run's page. detail: its trace, or the recorded one that stands in for it; compare_with: the scope
    whose newest run is `record.tokens_match`'s."""
    from analysis import html

    bundled = record.capture["recorded"]
    other, reference = None, None
    warnings: list[str] = []
    try:
        if other := _compared(record, outputs):
            reference = details.load(outputs / other.id, other.scope)
        elif bundled and compare_with:
            reference = _recorded_beside(recorded.FOLDER / bundled["trace"], compare_with)
    except UserError as error:  # the other run is damaged, this one is not
        warnings.append(f"{compare_with} is not shown beside it: {error}")
    headline = detail.headline if detail else _without_trace(record)
    if bundled:
        where = bundled["note"].split(",")[0]
        headline = f"{where[0].upper()}{where[1:]}: {headline[0].lower()}{headline[1:]}"
    metrics = record.metrics | (bundled["metrics"] if bundled else {})
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
        environment=environment(record, outputs / record.id),
        notes=_notes(record),
        warnings=warnings,
        figures=html.figures(detail.bar if detail else None, metrics),
    )


def of_sweep(records: Sequence[Record], labels: Sequence[str], outputs: Path, links: str) -> Report:
    """The page of several runs, each compared with the first. links: from the page's folder to `outputs`."""
    from analysis import html
    from analysis.headline import fastest

    traced = [details.load(outputs / record.id, label) for record, label in zip(records, labels, strict=True)]
    found = [one for one in traced if one]
    last = records[-1]
    timed = {
        label: record.metrics["ms_per_token"]
        for label, record in zip(labels, records, strict=True)
        if "ms_per_token" in record.metrics
    }
    return html.Report(
        title=", ".join(labels),
        subtitle=_subtitle(*records),
        headline=f"On {last.environment['machine']}, {fastest(timed)}",
        bars=[one.bar for one in found],
        traced=found,
        runs=[
            run_row(record, label, f"{links}{record.id}/{PAGE}")
            for record, label in zip(records, labels, strict=True)
        ],
        environment=environment(last, outputs / last.id),
        notes=_notes(*records),
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
        "Command": " ".join(Path(word).name if word.startswith("/") else word for word in record.command),
        "Measured": measure and f"{measure['iterations']} iterations after {measure['warmup']} of warm-up",
        "Traced": trace
        and record.capture["command"]
        and f"{trace['iterations']} iterations after {trace['warmup']} of warm-up",
        "Profiler": record.capture["backend"],
        "Profiler's cost": OVERHEAD in record.metrics
        and f"a token takes {shown(OVERHEAD, record.metrics[OVERHEAD])} longer while traced",
        "GPU metrics": METRICS_OVERHEAD in record.metrics
        and f"recorded apart, with tokens that take {report.longer(record.metrics[METRICS_OVERHEAD])}",
    }
    return [(term, str(value)) for term, value in about.items() if value]


def _notes(*records: Record) -> list[str]:
    """Where the numbers come from. The environment that is shown above them is the last run's."""
    record = records[-1]
    notes = ["Latencies are medians of the iterations of a process without a profiler."]
    if len({one.code for one in records}) > 1:
        notes.append(f"The code was not the same for all runs: environment and command are {record.scope}'s.")
    if record.capture["recorded"]:
        notes.append(
            f"This machine has no GPU: gaps, idle time, phases and kernels are those of a trace "
            f"{record.capture['recorded']['note']}, of which the first window is kept. The words, the "
            "tokens and this run's latencies are this machine's."
        )
    elif record.capture["command"]:
        notes.append(
            "Idle time, gaps, phases and kernels come from a second process, which was profiled. That slows "
            "launches down, so idle shares are somewhat larger than without it; the two are never mixed."
        )
    else:
        notes.append("Nothing was traced (capture=none), so nothing is known about gaps and kernels.")
    if any(one.capture.get("metrics") for one in records):
        notes.append(
            "Memory traffic comes from a third process, whose GPU counters were sampled. That makes the GPU "
            "faster and its gaps shorter, so no gaps are read from it."
        )
    return notes


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
