"""`python -m benchmarks.decode_attention`: a batch attending to its caches, by our kernel and by torch.

Whisper-small's shapes, a query a row, float16. A graph holds a call for each of many caches, more than L2
holds; its time divided by their number is what one takes in a decode step, gaps included. Torch's part is
what it does in the decoder's place: it also puts keys and values into the cache.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.replays import BANDWIDTH_BPS, median_us, run
from harness.results import markdown

HEADS, HEAD = 12, 64
OWN_LENGTH, POSITION = 104, 54  # of the cache of a window of 100 tokens; half of them are there
CROSS_LENGTH = 1500
ROWS = (1, 8, 64)
LEAST_CALLS = 24


@dataclass(frozen=True)
class Row:
    """Medians of replays, microseconds."""

    rows: int
    own: bool
    floor_us: float
    kernel_us: float
    torch_us: float


def floor_us(rows: int, own: bool) -> float:
    """What reading the keys and values that are seen takes at BANDWIDTH_BPS."""
    return rows * HEADS * (POSITION + 1 if own else CROSS_LENGTH) * HEAD * 2 * 2 / BANDWIDTH_BPS * 1e6


def measure(rows: int, own: bool) -> Row:
    import torch

    from experiments.attention import kernels
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

    with kernels("sdpa", "cuda"):
        times = {
            how: median_us(partial(body, attention(how, HEADS, HEAD, torch.float16)), len(caches))
            for how in ("kernel", "sdpa")
        }
    return Row(rows, own, floor_us(rows, own), times["kernel"], times["sdpa"])


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


def report(_: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The figures as text and as JSON."""
    found = [measure(rows, own) for own in (True, False) for rows in ROWS]
    return table(found), {"rows": [asdict(row) for row in found]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_attention", description=__doc__)
    return run(parser, report, argv)


if __name__ == "__main__":
    sys.exit(main())
