"""`python -m benchmarks.agreement METRICS.sqlite NCU.csv`: memory figures of samples beside Nsight Compute's.

METRICS is a recording with GPU metrics (a run's metrics.sqlite, or a published .xz), NCU what `capture=ncu`
measured of one decode step of the same program (ncu.csv, or .xz). The longest kernels of that step are
compared. Exit codes: 0 done, 5 FILE can't be written, 6 a file can't be read.
"""

from __future__ import annotations

import argparse
import lzma
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from analysis.errors import TraceError
from harness.errors import ExitCode

if TYPE_CHECKING:
    import pandas as pd

_PAGE = """\
# Do the samples tell the truth about memory?

`nsys` samples the whole device every few microseconds, in whole per cent; what one kernel of a few
microseconds moves is solved for from all samples ([how](../analysis/README.md#memory)). `ncu` repeats each
kernel alone, with empty caches, and counts. Beside each other, the {kernels} longest kernels of a decode
step of `cuda_graphs`, Whisper-small's shapes:

{table}

The class is the same for {agree} of {kernels}. The intervals know sampling, rounding and clocks. They
don't know what a kernel finds in L2 when it runs in its place, and not when it is repeated alone; nor do
samples see the traffic of the caches, which counts for `ncu`'s class.

Written by `python -m benchmarks.agreement` from {metrics} and {ncu}.
"""
_KERNELS = 12


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("metrics", type=Path, metavar="METRICS")
    parser.add_argument("ncu", type=Path, metavar="NCU")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    arguments = parser.parse_args(argv)
    try:
        found = compare(arguments.metrics, arguments.ncu)
        if arguments.markdown:
            arguments.markdown.write_text(page(found, arguments.metrics.name, arguments.ncu.name))
    except TraceError as error:
        print(f"error: {error}\n  try: {error.hint}", file=sys.stderr)
        return ExitCode.TRACE
    except OSError as error:
        print(f"error: {error.filename} can't be written or read: {error.strerror}", file=sys.stderr)
        return ExitCode.STORAGE
    print(table(found))
    return ExitCode.OK


def compare(metrics: Path, launches: Path) -> pd.DataFrame:
    """The longest kernels, see `analysis.memory.agreement`."""
    from analysis import Trace, account
    from analysis.memory import agreement, memory, ncu

    with TemporaryDirectory() as folder, Trace.open(metrics) as trace:
        if launches.suffix == ".xz":
            unpacked = Path(folder) / launches.stem
            unpacked.write_bytes(lzma.decompress(launches.read_bytes()))
            launches = unpacked
        return agreement(memory(trace, account(trace)), ncu.read(launches), _KERNELS)


def table(found: pd.DataFrame) -> str:
    """The comparison as a Markdown table."""
    from harness.results import markdown

    header = (
        "kernel",
        "launch",
        "µs",
        "µs, ncu",
        "MB (interval)",
        "MB, ncu",
        "DRAM",
        "DRAM, ncu",
        "class",
        "class, ncu",
    )
    rows = [
        (
            row["name"], row["shape"], f"{row['mean_ns'] / 1e3:.1f}", f"{row['ncu_ns'] / 1e3:.1f}",
            f"{row['megabytes']:.2f} ({row['low_megabytes']:.2f}–{row['high_megabytes']:.2f})",
            f"{row['ncu_megabytes']:.2f}", f"{row['dram_pct']:.0f}%", f"{row['ncu_dram_pct']:.0f}%",
            str(row["class_by_metrics"]), str(row["class_by_ncu"]),
        )
        for row in found.to_dict("records")
    ]  # fmt: skip
    return markdown(header, rows)


def page(found: pd.DataFrame, metrics: str, ncu: str) -> str:
    agree = int((found["class_by_metrics"].astype(str) == found["class_by_ncu"].astype(str)).sum())
    return _PAGE.format(kernels=len(found), agree=agree, table=table(found), metrics=metrics, ncu=ncu)


if __name__ == "__main__":
    sys.exit(main())
