"""`python -m analysis TRACE`: tables, figures and report of one trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.commands import common
from analysis.commands.stages import Stages

# pandas and matplotlib take most of a second to import: not before the arguments are known to be good.
if TYPE_CHECKING:
    from analysis import Account, Trace
    from analysis.memory import Memory

STAGES = ("reading", "accounting", "memory", "figures")


def analyse(path: Path, html: Path | None, figures: Path | None, *, as_json: bool) -> None:
    """Print tables or JSON; write the report to `html` and the figures into `figures` if these are given.

    Raises TraceError for a trace that can't be analysed, OSError for files that can't be written.
    """
    from analysis import Trace, account, diagnose
    from analysis.memory.samples import TABLE

    with Stages(STAGES) as stages, Trace.open(path) as trace:
        diagnose.require_gpu_work(trace)
        stages.next()
        acc = account(trace)
        if TABLE in trace.export.tables:
            acc = replace(acc, warnings=[*acc.warnings, diagnose.SAMPLED])
        if not as_json:
            from analysis import text

            with stages.hidden():
                common.print_tables(text.tables(acc))
        stages.next()
        if not (as_json or html or figures):
            return
        from analysis.memory import memory

        measured = memory(trace, acc)
        stages.next()
        written = _draw(trace, acc, measured, figures) if figures else []
        if html:
            from analysis import html as report

            written.append(report.write(html, report.of_trace(trace, acc, measured)))
        with stages.hidden():
            if as_json:
                from analysis.document import document

                common.print_json(document(trace, acc, measured))
            for file in written:
                common.say(file.resolve(), on_stderr=as_json)


def _draw(trace: Trace, acc: Account, measured: Memory, folder: Path) -> list[Path]:
    from analysis import plots

    stamp = plots.Stamp.of_trace(trace.info)
    drawn = {"gaps": plots.gaps(acc, stamp), "timeline": plots.timeline(trace, acc, stamp)}
    drawn |= plots.memory_figures(measured, stamp)
    return [path for stem, figure in drawn.items() for path in plots.save(figure, folder, stem)]
