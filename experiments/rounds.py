"""What is captured: the prefill, and one round of decoding that is repeated until no row runs any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from experiments.choice import Choice
from experiments.decode_state import DecodeState
from experiments.network import Network
from kernels.logit_rules import LogitRules

Mark = Callable[[str], AbstractContextManager[None]]  # opens a phase of that name


def unmarked(_: str) -> AbstractContextManager[None]:
    return nullcontext()


class Round(Protocol):
    def __call__(self, mark: Mark = unmarked) -> None:
        """Decode one token or more in each running row and leave the others as they are. `mark` is for phases
        within, of which a captured graph has none."""


class GreedyRound:
    """The last token of each row -> logits -> choice -> the next token."""

    def __init__(self, network: Network, state: DecodeState, rules: LogitRules, topk: str) -> None:
        self._network = network
        self._state = state
        self._end = rules.end
        self._choose = Choice(state, rules, topk, queries=1)

    def __call__(self, mark: Mark = unmarked) -> None:
        places = self._state.places(0, 1)
        logits = self._network.logits(self._state.history, places)
        self._state.accept(*self._choose(logits, places), self._end)


class Prefill:
    """What was heard and the prompts into the caches, and the choice of the first token."""

    def __init__(
        self,
        network: Network,
        draft: Network | None,
        encoded: torch.Tensor,
        state: DecodeState,
        rules: LogitRules,
        topk: str,
    ) -> None:
        """encoded: [B, S, C], where the encoder's output stands."""
        self._network = network
        self._draft = draft
        self._encoded = encoded
        self._state = state
        self._end = rules.end
        self._choose = Choice(state, rules, topk, queries=1, first=True)

    def __call__(self) -> None:
        state = self._state
        state.reset()
        self._network.begin_window(self._encoded)
        # Rows with shorter prompts read on behind them: those keys and values are overwritten before they
        # count.
        places = state.offsets[: state.prompt.shape[1]].expand_as(state.prompt)
        last = state.begin - 1
        logits = self._network.logits_at(state.history, places, last)
        if self._draft:
            self._draft.begin_window(self._encoded)
            self._draft.logits_at(state.history, places, last)
        state.accept(*self._choose(logits, last[:, None]), self._end)
