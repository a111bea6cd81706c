"""`python -m analysis TRACE`: tables and figures of any nsys export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.errors import TraceError

EXIT_STORAGE = 5
EXIT_TRACE = 6
_PIPE_WIDTH = 120

_EXAMPLES = """\
examples:
  python -m analysis trace.sqlite                    tables, and figures in ./trace-analysis/
  python -m analysis trace.sqlite.xz --out figures   a packed export, figures elsewhere
  python -m analysis trace.sqlite --no-plots         tables only

make an export with:  nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none -o trace PROGRAM
                      nsys export --type=sqlite --output=trace.sqlite trace.nsys-rep

exit codes: 0 done · 2 wrong usage · 5 figures can't be written · 6 the trace can't be analysed
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Where the GPU's time went in an Nsight Systems export: busy, idle, why, in which phase.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "trace", type=Path, metavar="TRACE", help="an nsys SQLite export (.sqlite, or .xz, .gz)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for figures (default: ./TRACE-analysis)"
    )
    parser.add_argument("--no-plots", action="store_true", help="print the tables only")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    out = arguments.out or Path(f"{arguments.trace.name.split('.sqlite')[0]}-analysis")
    try:
        _analyse(arguments.trace, None if arguments.no_plots else out)
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        return EXIT_TRACE
    except OSError as error:
        print(f"error: can't write to {out}: {error.strerror}", file=sys.stderr)
        print("  try: --out with a folder that you may write to", file=sys.stderr)
        return EXIT_STORAGE
    return 0


def _analyse(path: Path, out: Path | None) -> None:
    # pandas and matplotlib take most of a second to import: not before the arguments are known to be good.
    from rich.console import Console

    from analysis import Trace, account, diagnose, text

    with Trace.open(path) as trace:
        diagnose.require_gpu_work(trace)
        acc = account(trace)
        Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(text.tables(acc))
        if out is None:
            return
        from analysis import plots

        stamp = plots.Stamp.of_trace(trace.info)
        figures = {"gaps": plots.gaps(acc, stamp), "timeline": plots.timeline(trace, acc, stamp)}
        for stem, figure in figures.items():
            for file in plots.save(figure, out, stem):
                print(file.resolve())


if __name__ == "__main__":
    sys.exit(main())
