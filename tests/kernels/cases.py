"""Random problems for the kernels, small enough to be thought through and nasty enough to matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from kernels.logit_rules import LogitRules

END, NO_TIMESTAMPS, LENGTH = 11, 14, 12
TIMESTAMP_BEGIN = NO_TIMESTAMPS + 1
VOCABULARY = 24


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
