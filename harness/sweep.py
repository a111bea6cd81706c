"""After a sweep: what became of each job, and the scopes side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from harness.errors import ExitCode, UserError
from harness.record import Record, days

if TYPE_CHECKING:
    from analysis.plots import Stamp


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its record, None if it never became a run; its error, None if it worked."""

    scope: str
    overrides: list[str]
    record: Record | None
    error: UserError | None

    @property
    def exit_code(self) -> ExitCode:
        return self.error.exit_code if self.error else ExitCode.OK


def close(folder: Path, outcomes: Sequence[Outcome], outputs: Path, out: Console) -> None:
    """Print the closing table, draw the ladder and write the page into the sweep's folder, or remove the
    folder if no run came of the sweep (a dry run, or nothing but bad input)."""
    finished = [o.record for o in outcomes if o.record and o.record.status == "finished"]
    if not any(o.record for o in outcomes):
        for path in (folder / "multirun.yaml", folder, folder.parent, outputs):
            with suppress(OSError):
                path.unlink() if path.is_file() else path.rmdir()
    if len(outcomes) > 1:
        out.print(_table(outcomes))
    if len(finished) > 1:
        drawn = ladder(finished, folder)
        try:
            drawn.append(_page(finished, folder, outputs))
        except UserError as error:
            out.print(f"no report.html of the sweep: {error}", markup=False)
        for path in drawn:
            if path.suffix in (".png", ".html"):
                out.print(str(path.absolute()), markup=False, soft_wrap=True, highlight=False)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("job", "scope", "status", "run", "ms per token", title="Sweep", box=SIMPLE)
    for number, (outcome, name) in enumerate(zip(outcomes, labels(outcomes), strict=True)):
        record = outcome.record
        status = record.status if record else ("failed" if outcome.error else "shown only")
        table.add_row(
            str(number),
            name,
            status + (f": {outcome.error}" if outcome.error else ""),
            record.id if record else "",
            _per_token(record.metrics) if record else "",
        )
    return table


def _per_token(metrics: Mapping[str, float]) -> str:
    from analysis.statistics import TOO_FEW, unstable_remark  # numpy, which --help goes without

    if "ms_per_token" not in metrics:
        return ""
    remark = unstable_remark(metrics, "ms_per_token")
    if "ms_per_token.low" not in metrics:
        remark = TOO_FEW
    return f"{metrics['ms_per_token']:.3f}" + (f", {remark}" if remark else "")


def ladder(finished: Sequence[Record], folder: Path) -> list[Path]:
    """Draw ladder.png and ladder.svg of finished runs, the first of which the others are compared with."""
    import pandas as pd

    from analysis import plots

    columns = {
        "ms_per_token": "ms_per_token",
        "p25": "ms_per_token.p25",
        "p75": "ms_per_token.p75",
        "low": "ms_per_token.low",
        "high": "ms_per_token.high",
        "idle_share": "decode.idle_share",
        "kernels_per_token": "kernels_per_token",
        "encode_ms": "encode_ms",
    }
    names = labels(finished)
    rows = [
        {"scope": label, **_causes(record.metrics)}
        | {column: record.metrics.get(name, math.nan) for column, name in columns.items()}
        for label, record in zip(names, finished, strict=True)
    ]
    figure = plots.ladder(pd.DataFrame(rows), _stamp_of(finished))
    return [Path(path) for path in plots.save(figure, folder, "ladder")]


def _stamp_of(finished: Sequence[Record]) -> Stamp:
    """The caption of a figure of several runs."""
    from analysis.plots import Stamp

    machines = dict.fromkeys(record.environment["machine"] for record in finished)
    codes = dict.fromkeys(record.code for record in finished)
    when = days(record.started_utc for record in finished)
    return Stamp(", ".join(machines), ", ".join(codes), when, profiled=False)


def _causes(metrics: Mapping[str, float]) -> dict[str, float]:
    """The idle share of the decode phase by cause, as the ladder names it.

    A run's metrics leave out the causes that it doesn't have; without any of them nothing is known (NaN).
    """
    from analysis.accounting.causes import CAUSES

    found = {cause: metrics.get(f"decode.idle_share_{cause}") for cause in CAUSES}
    absent = math.nan if all(share is None for share in found.values()) else 0.0
    return {f"{cause}_share": absent if share is None else share for cause, share in found.items()}


def _page(finished: Sequence[Record], folder: Path, outputs: Path) -> Path:
    from analysis import html
    from harness import page

    return html.write(folder / page.PAGE, page.of_sweep(finished, labels(finished), outputs, "../../"))


def labels(records: Sequence[Record | Outcome]) -> list[str]:
    """Scopes' names; where one occurs more than once, with the overrides in which its runs differ."""
    every = [set(record.overrides) for record in records]
    shared = set.intersection(*every)
    names: list[str] = []
    for record, overrides in zip(records, every, strict=True):
        twice = sum(other.scope == record.scope for other in records) > 1
        own = sorted(o for o in overrides - shared if not o.startswith("+scope=")) if twice else []
        name = " ".join([record.scope, *own])
        again = sum(one.partition(" (again")[0] == name for one in names)
        names.append(f"{name} (again{f' {again}' if again > 1 else ''})" if again else name)
    return names
