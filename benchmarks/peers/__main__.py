"""`python -m benchmarks.peers`: Whisper beside its peers, side by side in one run.

Each contender runs in a process of its own, one after the other, on the same windows, with the same weights
and number of tokens. Rows are added to a file as they are made, so parts can be run in separate calls, and a
call that was cut short goes on with --resume:

  python -m benchmarks.peers --batch 1 --only 'transformers*' openai_whisper
  python -m benchmarks.peers --batch 1 --only cuda_graphs 'cuda_graphs graphs.how=compile'
  python -m benchmarks.peers --resume
  python -m benchmarks.peers table --update README.md

Exit codes: 0 all measured (what can't run here is said in its row), 2 usage, 4 no GPU, 5 a file can't be
written, 7 a contender failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.arguments import duration_s, positive
from benchmarks.peers import book, contest, table
from benchmarks.peers.contenders import OPENAI_WHISPER, Contender, Task, chosen, everyone, model
from harness import environment, processes
from harness.environment import PROJECT
from harness.errors import ExitCode, UserError
from harness.record import check_writable
from harness.report import screen
from harness.results import replace_between_marks

PUBLISHED = PROJECT / "results" / "bench.json"
UNPUBLISHED = PROJECT / "outputs" / "bench" / "bench.json"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        with processes.terminate_like_interrupt():
            return int(arguments.command(arguments))
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(UserError(str(error)).report(), file=sys.stderr)
        return ExitCode.STORAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    """Measure the chosen contenders."""
    contenders = chosen(arguments.only)
    gpu = environment.gpu()
    if arguments.device == "cuda" and not gpu:
        raise UserError(
            "this comparison is about a GPU, and the NVIDIA driver sees none",
            "--device cpu --model tiny_random, to see that all of it works",
            ExitCode.MACHINE,
        )
    into = arguments.into or (PUBLISHED if arguments.device == "cuda" else UNPUBLISHED)
    tasks = _tasks(arguments)
    rows = book.load(into)
    check_writable(into, "--into")
    stamp = environment.stamp(arguments.device)
    rounds = [(one, task) for task in tasks for one in contenders]
    if arguments.resume:
        rounds = _not_done(rows, rounds, stamp)
    failed = False
    lock = f"gpu-{gpu['uuid']}" if gpu and arguments.device == "cuda" else None
    with processes.alone(lock, screen()) if lock else nullcontext():
        for found in contest.contest(rounds, stamp, arguments.patience):
            row = book.add(into, found)
            failed |= "failed" in row
            print(_line(row, book.load(into)), flush=True)
    print(f"{into}: python -m benchmarks.peers table --from {into}")
    return ExitCode.CHILD if failed else ExitCode.OK


def _tasks(arguments: argparse.Namespace) -> list[Task]:
    """One for each batch."""
    shape = model(arguments.model)["shape"]
    room = shape["max_target_positions"] - 4
    if not 2 <= arguments.tokens <= room:
        raise UserError(f"--tokens {arguments.tokens} does not fit {arguments.model}", f"2 to {room}")
    return [
        Task(
            model=arguments.model,
            batch=batch,
            tokens=arguments.tokens,
            device=arguments.device,
            sound="",
            warmup=arguments.warmup,
            iterations=arguments.iterations,
            seconds=arguments.seconds,
        )
        for batch in dict.fromkeys(arguments.batch)
    ]


def _not_done(
    rows: Sequence[contest.Row], rounds: Sequence[tuple[Contender, Task]], stamp: dict[str, Any]
) -> list[tuple[Contender, Task]]:
    """Those that the file has no times of; says how many these are, and where this can't be known."""
    left = [(one, task) for one, task in rounds if not book.done(rows, one, task, stamp)]
    unknown = "" if stamp["git"]["commit"] else ", for the commit is unknown (HARNESS_COMMIT=...)"
    print(f"measured before: {len(rounds) - len(left)} of {len(rounds)}{unknown}", flush=True)
    return left


def _line(row: contest.Row, rows: Sequence[contest.Row]) -> str:
    """A row as one line on the screen, as soon as it is made."""
    words = [
        f"{title} {cell}" if title else f"batch {row['batch']:>2}  {row['contender']:<20}"
        for title, cell in zip(table.HEADER, table.cells(row, book.reference(rows, row)), strict=True)
        if cell != table.ABSENT
    ]
    there = book.earlier(rows, row)
    keeps = there and book.measured(there) and not book.measured(row)
    kept = "  (its earlier row, with times, is kept)" if keeps else ""
    return f"{'  '.join(words)}  [{row['wall_s']} s]{kept}"


def show(arguments: argparse.Namespace) -> int:
    """The tables, on the screen or in a file."""
    source = arguments.source or PUBLISHED
    rows = book.load(source)
    if not rows:
        raise UserError(f"{source} has no rows", "python -m benchmarks.peers")
    if arguments.update:
        replace_between_marks(arguments.update, table.page(rows), table.BEGIN, table.END)
    else:
        print(table.page(rows))
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        epilog=f"openai-whisper has to be installed besides: .venv/bin/pip install {OPENAI_WHISPER}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(one.name for one in everyone())
    option = parser.add_argument
    option("--only", nargs="+", default=["*"], metavar="NAME", help=f"patterns of: {names}")
    option("--batch", nargs="+", type=positive, default=[1, 8, 64], metavar="N", help="default: 1 8 64")
    option("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda (fp16); cpu: fp32")
    option("--model", default="whisper_small_random", help="of conf/model, default: %(default)s")
    option("--tokens", type=int, default=100, metavar="N", help="per window, default: %(default)s")
    option("--warmup", type=positive, default=2, metavar="N", help="default: %(default)s")
    option("--iterations", type=positive, default=20, metavar="N", help="at most, default: %(default)s")
    option("--seconds", type=duration_s, default=3.0, metavar="S", help="of iterations, default: %(default)s")
    option(
        "--patience",
        type=duration_s,
        default=400.0,
        metavar="S",
        help="per contender, default: %(default)s; the first of them compile kernels, which are kept",
    )
    option("--resume", action="store_true", help="leave out what the file has times of, of the same commit")
    option("--into", type=Path, metavar="FILE", help="default: results/bench.json, on a CPU outputs/bench/")
    parser.set_defaults(command=run)
    tables = parser.add_subparsers().add_parser("table", help="what was measured, in Markdown")
    tables.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="default: results/bench.json"
    )
    tables.add_argument(
        "--update", type=Path, metavar="FILE", help=f"write it between {table.BEGIN} and {table.END}"
    )
    tables.set_defaults(command=show)
    return parser


if __name__ == "__main__":
    sys.exit(main())
