"""Drawing tokens at a temperature, inside a captured round.

The Gumbel-max trick: the token with the largest log-probability / temperature + Gumbel noise is a draw from
softmax(logits / temperature) (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030). The noise is a hash of the
window's seed, the position and the token: the same window gets the same text, whatever is decoded beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experiments.decode_state import DecodeState, send
from experiments.network import Network
from experiments.rounds import Mark, unmarked
from kernels.logit_rules import LogitRules, masked_logits

MASK = 0xFFFFFFFF


class SampledRound:
    """The last token of each row -> logits -> a draw among what Whisper's rules allow -> the next token.

    Rows with temperature 0 take the likeliest token. The score counts log-probabilities at temperature 1.
    Where no token is left, as in logits of NaN, it is the end token at -inf, as in `fused_topk.reference`.
    """

    def __init__(self, network: Network, state: DecodeState, rules: LogitRules) -> None:
        self._network = network
        self._state = state
        self._rules = rules
        self._temperature = torch.zeros_like(state.score)
        self._seed = torch.zeros_like(state.begin)

    def expect(self, temperatures: Sequence[float], seeds: Sequence[int]) -> None:
        """Of all rows, for the next windows."""
        send(temperatures, self._temperature)
        send(seeds, self._seed)

    def __call__(self, mark: Mark = unmarked) -> None:
        state = self._state
        places = state.places(0, 1)
        logits = self._network.logits(state.history, places)
        allowed = masked_logits(logits, state.history, places[:, 0], state.begin, self._rules)
        logprobs = allowed.log_softmax(-1)
        noise = gumbel(self._seed, state.position, logits.shape[1])
        chosen = (logprobs + self._temperature[:, None] * noise).argmax(-1, keepdim=True)
        left = allowed.gather(1, chosen) > -torch.inf
        taken = torch.where(left, chosen, self._rules.end)
        state.accept(taken, torch.where(left, logprobs.gather(1, chosen), -torch.inf), self._rules.end)


def gumbel(seed: torch.Tensor, position: torch.Tensor, count: int) -> torch.Tensor:
    """float32 [B, count] for rows with seed int64 [B] at position int64 [B]."""
    row = _hash(_hash(seed) ^ position)
    bits = _hash(row[:, None] ^ torch.arange(count, device=seed.device))
    uniform = (bits.double() + 0.5) / 2**32  # neither 0 nor 1
    return -torch.log(-torch.log(uniform)).float()


def _hash(x: torch.Tensor) -> torch.Tensor:
    """A permutation of 32-bit numbers (lowbias32, https://nullprogram.com/blog/2018/07/31/), in int64."""
    x = x & MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return x ^ (x >> 16)
