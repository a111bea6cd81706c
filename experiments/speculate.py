"""Speculative decoding: a draft proposes K tokens, one pass of the model verifies them all.

The tokens are those of greedy decoding, whatever the draft says (Leviathan et al. 2023, arXiv 2211.17192, for
greedy choices): a proposal stands only where the model would have chosen it. Drafts, verification and the
account of what stands are one round, which one CUDA graph holds: that a round gives one token or up to K + 1
is a matter of positions on the device.
"""

from __future__ import annotations

import torch

from experiments.choice import Choice
from experiments.decode_state import DecodeState
from experiments.network import Network
from experiments.rounds import Mark, unmarked
from harness import phases
from kernels.logit_rules import LogitRules

SEED = 0  # of a script's pattern


class SpeculativeRound:
    """K steps of the draft network and a verification of K + 1 queries by the model's network."""

    def __init__(
        self,
        network: Network,
        draft: Network,
        state: DecodeState,
        rules: LogitRules,
        topk: str,
        drafts: int,
        script: Script | None = None,
    ) -> None:
        """drafts: K; script: what to propose instead of the draft's own choices."""
        self._network = network
        self._draft = draft
        self._state = state
        self._end = rules.end
        self._drafts = drafts
        self._script = script
        self._propose = Choice(state, rules, topk, queries=1)
        self._verify = Choice(state, rules, topk, queries=drafts + 1)
        self._second = torch.ones_like(state.begin)

    def __call__(self, mark: Mark = unmarked) -> None:
        with mark(phases.DRAFT):
            for index in range(self._drafts):
                self._propose_one(index)
        with mark(phases.VERIFY):
            places = self._state.places(0, self._drafts + 1)
            logits = self._network.logits(self._state.history, places)
            self._state.accept(*self._verify(logits, places), self._end)

    def _propose_one(self, index: int) -> None:
        """Write draft number `index` + 1 behind the last known token."""
        state = self._state
        place = state.places(index, 1)
        if index == 0:
            # After a round whose drafts all stood, the last of them is not in the draft's cache yet.
            two = state.places(-1, 2)
            logits = self._draft.logits_at(state.history, two, self._second)
        else:
            logits = self._draft.logits(state.history, place)
        proposed, _ = self._propose(logits, place)
        if self._script is not None:
            proposed = self._script.instead_of(proposed, place + 1)
        state.history.scatter_(1, place + 1, proposed)


class Script:
    """Proposals of a given acceptance, for random weights, whose draft never agrees.

    What is proposed at an index of history is the token that greedy decoding of the window has there, where a
    seeded pattern says so, and another token elsewhere.
    """

    def __init__(self, state: DecodeState, vocabulary: int, drafts: int, acceptance: float) -> None:
        """acceptance: wanted share of the drafted tokens that are accepted; drafts: K."""
        self._vocabulary = vocabulary
        self._known = torch.zeros_like(state.history)
        agreement = agreement_for(acceptance, drafts)
        length = state.history.shape[1]
        order = torch.randperm(length, generator=torch.Generator().manual_seed(SEED))
        self._pattern = (order < round(agreement * length)).expand_as(state.history).to(state.history.device)
        self._agrees = self._pattern.clone()

    def instead_of(self, proposed: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """What to propose at `places` [B, 1] instead of `proposed`, which only has been computed."""
        known = self._known.gather(1, places)
        return torch.where(self._agrees.gather(1, places), known, (known + 1) % self._vocabulary)

    def never_agree(self) -> None:
        """Propose nothing that is known to be right: rounds then decode greedily, one token or by chance
        two."""
        self._agrees.zero_()

    def follow(self, known: torch.Tensor) -> None:
        """Propose by the pattern again; known: int64 [B, T], what greedy decoding has in history."""
        self._known.copy_(known)
        self._agrees.copy_(self._pattern)


def agreement_for(acceptance: float, drafts: int) -> float:
    """How likely each draft has to be right for a share `acceptance` of all drafts to be accepted.

    A draft counts only while those before it were right, too: of K drafts p + p² + … + p^K are accepted.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if sum(middle**n for n in range(1, drafts + 1)) < acceptance * drafts:
            low = middle
        else:
            high = middle
    return high
