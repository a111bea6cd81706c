"""`python -m analysis TRACE`: tables and figures of any nsys export. Other words are commands: see --help."""

from __future__ import annotations

import argparse
import atexit
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from analysis.commands import common, given
from analysis.commands.common import Exit
from analysis.errors import TraceError, not_installed
from analysis.reading.source import output_name

COMMANDS = ("compare", "check", "export")

_EXAMPLES = """\
examples:
  python -m analysis trace.sqlite                    tables, and report and figures in ./trace-analysis/
  python -m analysis trace.sqlite.xz --out figures   a packed export, figures elsewhere
  python -m analysis trace.sqlite --no-plots         tables only
  python -m analysis outputs/baseline/UTC            the trace of a run; files in ./baseline-UTC-analysis/
  python -m analysis outputs/baseline                the same of the newest run that finished
  python -m analysis trace.sqlite --json             everything as one JSON document, no files

commands (each with a --help of its own):
  python -m analysis compare A B           what changed between runs or traces, and where
  python -m analysis check RUN --baseline RUN --max latency=+5%
                                           for CI: 0 within the limits, 1 regression, 3 too noisy to tell
  python -m analysis export TRACE --perfetto
                                           for ui.perfetto.dev

make an export with:  nsys profile --trace=cuda,nvtx --sample=none --cpuctxsw=none -o trace PROGRAM
                      nsys export --type=sqlite --output=trace.sqlite trace.nsys-rep
with --gpu-metrics-devices=0 --gpu-metrics-frequency=100000 it also tells what the GPU's memory did;
that changes the gaps, so take these from a trace without

exit codes: 0 done · 2 wrong usage · 5 files or output can't be written · 6 the trace can't be analysed
            70 an error of this program, with its traceback · 130 interrupted, and so for the commands
"""


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except ModuleNotFoundError as missing:
        return common.fail(*not_installed(missing), Exit.USAGE)
    except common.OutputLost as lost:
        return common.fail(f"the output can't be written: {lost}", "another place for it", Exit.STORAGE)
    except Exception:
        return common.fail_unexpected()


def _run(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return int(import_module(f"analysis.commands.{words[0]}").main(words[1:]))
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.out and (arguments.json or arguments.no_plots):
        option = "--json" if arguments.json else "--no-plots"
        parser.error(
            f"--out is for report and figures, and {option} writes none: leave one of the two out, or write "
            "the report alone with --html FILE"
        )
    return _trace(arguments)


def _parser() -> argparse.ArgumentParser:
    description = "Where the GPU's time went in an Nsight Systems export: busy, idle, why, in which phase."
    parser = common.parser("", description, _EXAMPLES)
    parser.add_argument("trace", type=Path, metavar="TRACE", help=given.TRACE)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for report and figures (default: ./TRACE-analysis, of a run ./SCOPE-UTC-analysis)",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="where the report goes (default: report.html in that folder)",
    )
    parser.add_argument(
        "--no-plots", action="store_true", help="print the tables only (and --html, if given)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables (and write --html)")
    return parser


def _trace(arguments: argparse.Namespace) -> int:
    try:
        path = given.trace_of(arguments.trace)
    except TraceError as error:
        return common.fail_trace(error)
    out = arguments.out or Path(f"{output_name(path)}-analysis")
    tables_only = arguments.no_plots or arguments.json
    html = arguments.html or (None if tables_only else out / "report.html")
    from analysis.commands.analyse import analyse

    try:
        analyse(path, html, None if tables_only else out, as_json=arguments.json)
    except TraceError as error:
        return common.fail_trace(error)
    except OSError as error:
        where = Path(error.filename or html or out)
        # Both options may have named it: the report's file, or a folder on the way to it.
        of_page = arguments.html and where in (html, *arguments.html.parents)
        if arguments.html and (tables_only or (of_page and where not in (out, *out.parents))):
            return common.fail_storage(error, where, "--html with a file that you may write")
        return common.fail_storage(error, where, "--out with a folder that you may write to")
    return Exit.OK


if __name__ == "__main__":
    atexit.register(gc.freeze)  # or Python looks through all that it still holds before it ends
    sys.exit(main())
