"""`python -m benchmarks.int8_gemv`: the int8 GEMV beside torchao's int8 linear, fp16 and the floor of bytes.

Each is captured in a graph of many calls, which take their weights from many copies in turn: none is in
the L2 cache. A call's time is that of the replayed graph divided by its calls: gaps between kernels count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torchao.quantization import Int8Tensor, PerRow

from benchmarks import replays
from benchmarks.replays import BANDWIDTH_BPS, run
from harness.results import markdown
from kernels import int8_gemv
from kernels.int8_gemv import MAX_ROWS, Plan

# Whisper-small: [N, K] of a step's layers.
LAYERS = {
    "attention out, cross query": (768, 768),
    "query, key and value": (2304, 768),
    "MLP in": (3072, 768),
    "MLP out": (768, 3072),
    "vocabulary": (51865, 768),
    "vocabulary, filled up": (51872, 768),  # as StaticDecoder has it: an odd one is slow in fp16
}
COLD_BYTES = 2**27  # of copies, more than twice the L2 cache of an H200
LEAST_CALLS = 200  # of a graph, so that its own launch doesn't count


@dataclass(frozen=True)
class Result:
    """One way to compute one layer: times in µs per call, one a replay."""

    layer: str
    rows: int
    shape: tuple[int, int]
    way: str
    floor_us: float
    times_us: list[float]

    @property
    def median_us(self) -> float:
        return median(self.times_us)


def floor_us(rows: int, n: int, k: int) -> float:
    """What reading int8 weights, fp16 scales, bias and x, and writing y takes at BANDWIDTH_BPS."""
    return (n * k + 2 * (2 * n + rows * k + rows * n)) / BANDWIDTH_BPS * 1e6


class Layer:
    """A layer with enough copies of its weights to find none of them in the cache."""

    def __init__(self, n: int, k: int, rows: int) -> None:
        self.x = torch.randn(rows, k, device="cuda", dtype=torch.float16)
        self.bias = torch.randn(n, device="cuda", dtype=torch.float16)
        self.out = torch.empty(rows, n, device="cuda", dtype=torch.float16)
        copies = COLD_BYTES // (n * k) + 1
        wide = torch.randn(n, k, device="cuda", dtype=torch.float16) / k**0.5
        self.wide = [wide.clone() for _ in range(copies)]
        self.narrow = [Int8Tensor.from_hp(wide, PerRow()) for _ in range(copies)]

    def ours(self, layout: Plan) -> Callable[[int], None]:
        def call(i: int) -> None:
            weight = self.narrow[i % len(self.narrow)]
            int8_gemv.launch(layout, self.out, self.x, weight.qdata, weight.scale, self.bias)

        return call

    def by_torch(self, weights: Sequence[torch.Tensor]) -> Callable[[int], object]:
        return lambda i: F.linear(self.x, weights[i % len(weights)], self.bias)


def times_us(call: Callable[[int], object], copies: int) -> list[float]:
    """µs per call of each replay."""
    calls = max(LEAST_CALLS, copies)

    def all_of_them() -> None:
        for i in range(calls):
            call(i)

    return replays.times_us(all_of_them, calls)


def other_plans(n: int, k: int) -> list[Plan]:
    """Layouts that might be better than `plan`'s."""
    layouts = []
    for steps, most_warps in ((4, 20), (12, 8)):
        for split in (1, 2, 3, 4, 6, 8, 12, 16):
            if split <= most_warps and (split == 1 or 64 * steps * (split - 1) < k):
                blocks = (split, *(w for w in (2 * split, 4 * split, 8 * split) if w <= min(16, most_warps)))
                layouts += [Plan(split, warps, steps) for warps in blocks]
    return [layout for layout in layouts if layout != int8_gemv.plan(n, k)]


def measured(rows: Sequence[int], sweep: bool) -> list[Result]:
    """All ways of all layers, printed as they come."""
    results = []
    for name, (n, k) in LAYERS.items():
        for m in rows:
            layer, layout = Layer(n, k, m), int8_gemv.plan(n, k)
            ways: dict[str, Callable[[int], object]] = {
                "ours": layer.ours(layout),
                "ours, overlapping": layer.ours(replace(layout, overlap=True)),
                "torchao int8": layer.by_torch(layer.narrow),
                "fp16": layer.by_torch(layer.wide),
            }
            if sweep:
                ways |= {f"ours, {p.split}/{p.warps}/{p.steps}": layer.ours(p) for p in other_plans(n, k)}
            for way, call in ways.items():
                times = times_us(call, len(layer.wide))
                results.append(Result(name, m, (n, k), way, floor_us(m, n, k), times))
                print(f"{name}, {m} rows, {way}: {results[-1].median_us:.2f} µs", file=sys.stderr, flush=True)
    return results


def table(results: Sequence[Result]) -> str:
    """Median µs per call; a row per layer and rows of x."""
    header = [
        "layer",
        "N × K",
        "rows",
        "floor",
        "ours",
        "of the floor's rate",
        "ours, overlapping",
        "torchao int8",
    ]
    lines = []
    for name, m in dict.fromkeys((result.layer, result.rows) for result in results):
        found = {result.way: result for result in results if (result.layer, result.rows) == (name, m)}
        ours, wide = found["ours"], found["fp16"]
        times = [found[way].median_us for way in ("ours, overlapping", "torchao int8")]
        n, k = ours.shape
        cells = [name, f"{n} × {k}", f"{m}", f"{ours.floor_us:.2f}", f"{ours.median_us:.2f}"]
        cells += [f"{ours.floor_us / ours.median_us:.0%}", *(f"{time:.2f}" for time in times)]
        lines.append([*cells, f"{wide.median_us:.2f}", f"{wide.median_us / ours.median_us:.2f}×"])
    return markdown([*header, "fp16", "ours against fp16"], lines)


def best_plans(results: Sequence[Result]) -> str:
    """The three fastest layouts of each layer, as split/warps/steps, and the one that `plan` chooses."""
    lines = []
    for name, m in dict.fromkeys((result.layer, result.rows) for result in results):
        ways = [r for r in results if (r.layer, r.rows) == (name, m) and r.way.startswith("ours")]
        ways = sorted((r for r in ways if "overlapping" not in r.way), key=lambda r: r.median_us)
        best = "; ".join(f"{r.way.removeprefix('ours, ')} {r.median_us:.2f}" for r in ways[:3])
        chosen = int8_gemv.plan(*ways[0].shape)
        lines.append([f"{name}, {m} rows", f"{chosen.split}/{chosen.warps}/{chosen.steps}", best])
    return markdown(["layer", "plan", "fastest, µs"], lines)


def report(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The figures as text and as JSON."""
    results = measured(arguments.rows, arguments.sweep)
    text = f"µs, cold L2\n\n{table(results)}"
    if arguments.sweep:
        text += f"\n\n{best_plans(results)}"
    return text, {"results": [asdict(result) for result in results]}


def rows_of_x(text: str) -> int:
    """How many rows the kernel takes at once."""
    if not 1 <= int(text) <= MAX_ROWS:
        raise argparse.ArgumentTypeError(f"has to be 1 to {MAX_ROWS}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8_gemv", description=__doc__)
    parser.add_argument(
        "--rows",
        type=rows_of_x,
        nargs="+",
        default=[1, 5, 8],
        metavar="M",
        help="rows of x (default: %(default)s)",
    )
    parser.add_argument("--sweep", action="store_true", help="other layouts of the kernel, too")
    return run(parser, report, argv)


if __name__ == "__main__":
    sys.exit(main())
