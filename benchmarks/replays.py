"""What the benchmarks of kernels share: the time of a call inside a CUDA graph, and the command around it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from harness.errors import ExitCode, UserError
from harness.record import check_writable, write_json

BANDWIDTH_BPS = 4.3e12  # what reading reaches on an H200, as measured
WARMUP, REPLAYS = 3, 20


def times_us(
    body: Callable[[], object], calls: int = 1, warmup: int = WARMUP, replays: int = REPLAYS
) -> list[float]:
    """µs per call of each of `replays` replays, one close behind the other, of a body of `calls`
    calls, which is captured here; the gaps between its kernels count.
    """
    import torch

    from experiments.graphs import capture

    graph = capture(body)
    for _ in range(warmup):
        graph.replay()
    stamps = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
    torch.cuda.synchronize()
    stamps[0].record()
    for stamp in stamps[1:]:
        graph.replay()
        stamp.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) * 1e3 / calls for begin, end in pairwise(stamps)]


def median_us(body: Callable[[], object], calls: int = 1, **repeats: int) -> float:
    """The median of `times_us`."""
    return median(times_us(body, calls, **repeats))


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], tuple[str, dict[str, Any]]],
    argv: list[str] | None = None,
) -> int:
    """The command: prints the text that `measure` made and the machine, and writes its figures to --json.

    Exit codes: 0 done, 4 no GPU or no nvcc, 5 the file can't be written.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    arguments = parser.parse_args(argv)
    import torch

    from benchmarks.origin import origin

    try:
        if not torch.cuda.is_available():
            raise UserError("no CUDA GPU was found", "run it on a machine with one", ExitCode.MACHINE)
        if arguments.json:
            check_writable(arguments.json, "--json")
        with torch.inference_mode():
            text, figures = measure(arguments)
        print(f"{text}\n\n{', '.join(origin().values())}")
        if arguments.json:
            write_json(arguments.json, {"origin": origin(), **figures})
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename} can't be written: {error.strerror}", file=sys.stderr)
        return ExitCode.STORAGE
    return ExitCode.OK
