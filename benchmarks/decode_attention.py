"""`python -m benchmarks.decode_attention`: a batch attending to its caches, by our kernel and by torch.

Whisper-small's shapes, a query a row, float16. A graph holds a call for each of many caches, more than L2
holds; its time divided by their number is what one takes in a decode step, gaps included. Torch's part is
what it does in the decoder's place: it also puts keys and values into the cache.
Exit codes: 0 done, 4 no GPU or no nvcc, 5 FILE can't be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from harness.errors import ExitCode, UserError
from harness.record import write_json
from harness.results import markdown

HEADS, HEAD = 12, 64
OWN_LENGTH, POSITION = 104, 54  # of the cache of a window of 100 tokens; half of them are there
CROSS_LENGTH = 1500
ROWS = (1, 8, 64)
LEAST_CALLS, WARMUP, REPLAYS = 24, 3, 20
BANDWIDTH_BPS = 4.3e12  # what reading reaches on an H200


@dataclass(frozen=True)
class Row:
    """Medians of REPLAYS replays, microseconds."""

    rows: int
    own: bool
    floor_us: float
    kernel_us: float
    torch_us: float


def floor_us(rows: int, own: bool) -> float:
    """What reading the keys and values that are seen takes at BANDWIDTH_BPS."""
    return rows * HEADS * (POSITION + 1 if own else CROSS_LENGTH) * HEAD * 2 * 2 / BANDWIDTH_BPS * 1e6


def measure(rows: int, own: bool, kept: list[object]) -> Row:
    import torch

    from experiments.cache_attention import CacheAttention, Seen, attention

    length = OWN_LENGTH if own else CROSS_LENGTH
    like = {"device": "cuda", "dtype": torch.float16}
    cache_bytes = 2 * rows * HEADS * length * HEAD * 2
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    count = max(LEAST_CALLS, 2 * l2_bytes // cache_bytes + 1)
    caches = [torch.randn(2, rows, HEADS, length, HEAD, **like) for _ in range(count)]
    given = torch.randn(rows, 1, (3 if own else 1) * HEADS * HEAD, **like)
    positions = torch.full((rows, 1), POSITION, device="cuda")
    slots = torch.arange(rows, device="cuda")[:, None], positions
    hidden = torch.arange(length, device="cuda") > POSITION
    seen = Seen(positions, slots, torch.zeros(rows, 1, 1, length, **like).masked_fill(hidden, -torch.inf))

    def body(by: CacheAttention) -> None:
        for cache in caches:
            by.own(given, cache, seen) if own else by.cross(given, cache)

    times = {
        how: _median_us(partial(body, attention(how, HEADS, HEAD, torch.float16)), kept) / len(caches)
        for how in ("kernel", "sdpa")
    }
    return Row(rows, own, floor_us(rows, own), times["kernel"], times["sdpa"])


def _median_us(body: Callable[[], None], kept: list[object]) -> float:
    import torch

    from experiments.attention import kernels
    from experiments.graphs import capture

    with kernels("sdpa", "cuda"):
        graph = capture(body)
    kept.append((graph, body))  # torch 2.11: a graph can't be captured after another was destroyed
    times_us = []
    for _ in range(WARMUP + REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times_us.append(begin.elapsed_time(end) * 1e3)
    return median(times_us[WARMUP:])


def table(found: list[Row]) -> str:
    header = [
        "attention to",
        "rows",
        "floor, µs",
        "kernel",
        "of the floor's rate",
        "torch",
        "speed-up",
    ]
    lines = [
        [
            "own tokens" if row.own else "what was heard",
            f"{row.rows}",
            f"{row.floor_us:.2f}",
            f"{row.kernel_us:.2f}",
            f"{row.floor_us / row.kernel_us:.0%}",
            f"{row.torch_us:.2f}",
            f"{row.torch_us / row.kernel_us:.1f}×",
        ]
        for row in found
    ]
    return markdown(header, lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_attention", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    arguments = parser.parse_args(argv)
    import torch

    from benchmarks.origin import origin

    try:
        if not torch.cuda.is_available():
            raise UserError("no CUDA GPU was found", "run it on a machine with one", ExitCode.MACHINE)
        kept: list[object] = []
        with torch.inference_mode():
            found = [measure(rows, own, kept) for own in (True, False) for rows in ROWS]
        print(f"{', '.join(origin().values())}; medians of {REPLAYS} replays\n")
        print(table(found))
        if arguments.json:
            write_json(arguments.json, {"origin": origin(), "rows": [asdict(row) for row in found]})
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename} can't be written: {error.strerror}", file=sys.stderr)
        return ExitCode.STORAGE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
