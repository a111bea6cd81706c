"""Random problems for the kernels, small enough to be thought through and nasty enough to matter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st

from kernels.logit_rules import LogitRules

END, NO_TIMESTAMPS, LENGTH = 11, 14, 12
TIMESTAMP_BEGIN = NO_TIMESTAMPS + 1
VOCABULARY = 24
Arguments = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, LogitRules]


@dataclass(frozen=True)
class Problem:
    """Arguments of `fused_topk.reference` but for k, and what the rules were built from."""

    logits: torch.Tensor
    history: torch.Tensor
    positions: torch.Tensor
    begin: torch.Tensor
    rules: LogitRules
    suppress: list[int]
    begin_suppress: list[int]

    @property
    def arguments(self) -> Arguments:
        return self.logits, self.history, self.positions, self.begin, self.rules


# Multiples of 1/8: exact in every float type, with many ties. Special ones are frequent enough to fill a row.
LOGITS = st.one_of(
    st.integers(-64, 64).map(lambda eighths: eighths / 8),
    st.sampled_from([0.0, -0.0, float("-inf"), float("inf"), float("nan")]),
)


@st.composite
def problems(
    draw: Any,
    timestamps: bool | None = None,
    forced: bool = True,
    logits: Any = LOGITS,
    vocabulary: int = VOCABULARY,
) -> Problem:
    """N = B * Q rows of V logits. Token ids keep Whisper's order: text, end, specials, timestamps."""
    rows, queries = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    token = st.integers(0, vocabulary - 1)
    stamped = draw(st.booleans()) if timestamps is None else timestamps
    history = draw(st.lists(token, min_size=rows * LENGTH, max_size=rows * LENGTH))
    begin = draw(st.lists(st.integers(1, 5), min_size=rows, max_size=rows))
    ahead = draw(st.lists(st.integers(0, LENGTH - 8), min_size=rows, max_size=rows))
    positions = [b - 1 + a + q for b, a in zip(begin, ahead, strict=True) for q in range(queries)]
    suppress = draw(st.lists(token, max_size=5))
    begin_suppress = draw(st.lists(token, max_size=5))
    must = draw(st.dictionaries(st.integers(0, LENGTH - 1), token, max_size=3)) if forced else {}
    rules = LogitRules.build(
        vocabulary,
        LENGTH,
        END,
        suppress,
        begin_suppress,
        must,
        TIMESTAMP_BEGIN if stamped else -1,
        draw(st.integers(-1, 4)) if stamped else -1,
    )
    count = rows * queries * vocabulary
    values = draw(st.lists(logits, min_size=count, max_size=count))
    return Problem(
        torch.tensor(values).view(rows * queries, vocabulary),
        torch.tensor(history).view(rows, LENGTH),
        torch.tensor(positions),
        torch.tensor(begin),
        rules,
        suppress,
        begin_suppress,
    )


def outputs(rows: int, k: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Room for ids, logprobs and logsumexp, filled with what is never right."""
    return (
        torch.full((rows, k), -7, device=device),
        torch.full((rows, k), 7.0, device=device),
        torch.full((rows,), 7.0, device=device),
    )


def on(device: str, arguments: Arguments, dtype: torch.dtype = torch.float32, padding: int = 0) -> Arguments:
    """The arguments of a call on a device, the logits in rows that are `padding` elements further apart."""
    logits, history, positions, begin, rules = arguments
    wide = torch.nn.functional.pad(logits, (0, padding), value=99.0).to(dtype).to(device)
    moved = replace(rules, banned=rules.banned.to(device), forced=rules.forced.to(device))
    tensors = (history.to(device), positions.to(device), begin.to(device))
    return wide[:, : logits.shape[1]], *tensors, moved


def whisper(
    rows: int, queries: int, vocabulary: int = 51865, timestamps: bool = True, seed: int = 0
) -> Arguments:
    """Arguments at Whisper's sizes: logits like a model's, rounded so that ties are common, 90 suppressed
    tokens, and histories that end in text, in one timestamp or in two."""
    generator = torch.Generator().manual_seed(seed)
    begin_stamps = vocabulary - vocabulary // 34
    history = torch.randint(0, begin_stamps, (rows, 448), generator=generator)
    stamps = torch.randint(begin_stamps, vocabulary, history.shape, generator=generator)
    history = torch.where(torch.rand(history.shape, generator=generator) < 0.4, stamps, history)
    begin = torch.randint(1, 5, (rows,), generator=generator)
    ahead = torch.randint(0, 400, (rows,), generator=generator) * torch.randint(
        0, 2, (rows,), generator=generator
    )
    positions = (begin - 1 + ahead)[:, None] + torch.arange(queries)
    suppress = torch.randint(0, vocabulary, (90,), generator=generator).tolist()
    logits = torch.randn(rows * queries, vocabulary, generator=generator).mul(24).round() / 8
    rules = LogitRules.build(
        vocabulary,
        448,
        begin_stamps - 100,
        suppress,
        [220, begin_stamps - 100],
        {10: 5},
        begin_stamps if timestamps else -1,
        50 if timestamps else -1,
    )
    return logits, history, positions.flatten(), begin, rules
