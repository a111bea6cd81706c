"""`python -m benchmarks.topk`: the fused choice of the next token beside the same in torch, inside a graph.

A graph holds many choices, one after another; its time divided by their number is what one of them takes in a
decode step, with its share of the gaps between kernels. Warm: all choices read the same logits. Cold: each
has logits and rules of its own, more than L2 holds. Dependent: programmatic dependent launch, warm.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.replays import BANDWIDTH_BPS, median_us, run

if TYPE_CHECKING:
    import torch

    from kernels.logit_rules import LogitRules

VOCABULARY, LENGTH, END, TIMESTAMP_BEGIN = 51865, 448, 50257, 50364
WARM_COPIES = 50


@dataclass(frozen=True)
class Row:
    """Times of one choice in microseconds, medians of graph launches."""

    timestamps: bool
    rows: int
    k: int
    floor_us: float
    fused_warm_us: float
    fused_cold_us: float
    fused_dependent_us: float
    torch_warm_us: float
    torch_cold_us: float


class Case:
    """N rows of float16 logits behind a history of 100 tokens, and what chooses among them."""

    def __init__(self, rows: int, k: int, timestamps: bool, device: str = "cuda") -> None:
        import torch

        from kernels.logit_rules import NEVER, NOT_FIRST, LogitRules

        self.logits = torch.randn(rows, VOCABULARY, device=device).half()
        self.history = torch.randint(0, 50000, (1, LENGTH), device=device)
        self.positions = torch.arange(100, 100 + rows, device=device)
        self.begin = torch.tensor([4], device=device)
        self.rules: LogitRules = LogitRules.build(
            VOCABULARY,
            LENGTH,
            END,
            range(1, 9000, 100),
            [220, END],
            timestamp_begin=TIMESTAMP_BEGIN if timestamps else -1,
            device=device,
        )
        self.never = self.rules.banned & NEVER > 0
        self.not_first = self.rules.banned & NOT_FIRST > 0
        self.ids = torch.empty(rows, k, dtype=torch.long, device=device)
        self.logprobs = torch.empty(rows, k, device=device)
        self.logsumexp = torch.empty(rows, device=device)

    def fused(self, dependent: bool = False) -> None:
        from kernels.fused_topk import fused_topk

        inputs = (self.logits, self.history, self.positions, self.begin, self.rules)
        fused_topk(*inputs, self.ids, self.logprobs, self.logsumexp, dependent)

    def unfused(self) -> None:
        """Rules, log_softmax and topk, max for k = 1; without timestamps in as few operations as they can
        be said."""
        import torch

        from kernels.logit_rules import masked_logits

        if self.rules.timestamp_begin >= 0:
            scores = masked_logits(self.logits, self.history, self.positions, self.begin, self.rules)
        else:
            first = (self.positions + 1 == self.begin)[:, None]
            scores = self.logits.float().masked_fill(self.never | (first & self.not_first), -torch.inf)
        logprobs, k = scores.log_softmax(-1), self.ids.shape[1]
        best = logprobs.max(-1, keepdim=True) if k == 1 else logprobs.topk(k)  # sorting would cost more
        self.logprobs.copy_(best.values)
        self.ids.copy_(best.indices)

    def bytes_read(self) -> int:
        return self.logits.numel() * self.logits.element_size() + self.rules.banned.numel()


def chain_us(bodies: list[Callable[[], None]]) -> float:
    """Time of one of `bodies`, which are captured one after another into one graph."""

    def all_of_them() -> None:
        for body in bodies:
            body()

    return median_us(all_of_them, len(bodies))


def measure(rows: int, k: int, timestamps: bool) -> Row:
    """All figures of one case."""
    import torch

    case = Case(rows, k, timestamps)
    # Twice the cache: a replay must not find what the last one left there.
    many = 2 * torch.cuda.get_device_properties(0).L2_cache_size // case.bytes_read() + 1
    cases = [Case(rows, k, timestamps) for _ in range(many)]
    return Row(
        timestamps,
        rows,
        k,
        case.bytes_read() / BANDWIDTH_BPS * 1e6,
        chain_us([case.fused] * WARM_COPIES),
        chain_us([one.fused for one in cases]),
        chain_us([lambda: case.fused(dependent=True)] * WARM_COPIES),
        chain_us([case.unfused] * WARM_COPIES),
        chain_us([one.unfused for one in cases]),
    )


def accept_us(queries: int) -> float:
    """Time of one acceptance, warm. The row soon is at its limit: then as much is read, and less written."""
    import torch

    from kernels.accept import accept

    def filled(value: int, *shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
        return torch.full(shape, value, dtype=dtype, device="cuda")

    state = {
        "history": filled(0, 1, LENGTH),
        "position": filled(100, 1),
        "chosen": filled(0, 1, queries),
        "logprobs": filled(0, 1, queries, dtype=torch.float32),
        "limit": filled(LENGTH - 1, 1),
        "running": filled(1, 1, dtype=torch.int32),
        "any_running": filled(1, 1, dtype=torch.int32),
        "rounds": filled(0, 1),
        "score": filled(0, 1, dtype=torch.float32),
    }
    return chain_us([lambda: accept(**state, end=END)] * WARM_COPIES)


def table(found: list[Row]) -> str:
    """The figures as a Markdown table, in microseconds."""
    lines = [
        "| rules | N | k | floor of bytes | fused warm | cold | dependent | torch warm | cold | speed-up |",
        "| --- " + "| ---: " * 9 + "|",
    ]
    for row in found:
        rules = "timestamps" if row.timestamps else "suppressed tokens"
        fused = f"{row.fused_warm_us:.2f} | {row.fused_cold_us:.2f} | {row.fused_dependent_us:.2f}"
        unfused = f"{row.torch_warm_us:.1f} | {row.torch_cold_us:.1f}"
        ratio = f"{row.torch_warm_us / row.fused_warm_us:.1f}×"
        lines.append(
            f"| {rules} | {row.rows} | {row.k} | {row.floor_us:.3f} | {fused} | {unfused} | {ratio} |"
        )
    return "\n".join(lines)


def report(_: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The figures as text and as JSON."""
    found = [measure(rows, k, timestamps) for timestamps in (False, True) for rows in (1, 5) for k in (1, 8)]
    accepts = {queries: accept_us(queries) for queries in (1, 5)}
    said = ", ".join(f"Q={queries} {us:.2f}" for queries, us in accepts.items())
    text = f"V={VOCABULARY}, float16, µs\n\n{table(found)}\n\naccept: {said}"
    return text, {"vocabulary": VOCABULARY, "rows": [asdict(row) for row in found], "accept_us": accepts}


def main(argv: list[str] | None = None) -> int:
    return run(argparse.ArgumentParser(prog="python -m benchmarks.topk", description=__doc__), report, argv)


if __name__ == "__main__":
    sys.exit(main())
