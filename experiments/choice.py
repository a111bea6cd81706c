"""Greedy choice of the next token under Whisper's rules."""

from __future__ import annotations

import torch

from experiments.decode_state import DecodeState
from experiments.models import LoadedModel
from kernels.fused_topk import fused_topk, reference
from kernels.logit_rules import NEVER, NOT_FIRST, LogitRules


def rules_of(loaded: LoadedModel, length: int, timestamps: bool) -> LogitRules:
    """The rules of a checkpoint for histories of `length`; with `timestamps`, those for them, too."""
    config = loaded.model.generation_config
    initial = getattr(config, "max_initial_timestamp_index", None)
    return LogitRules.build(
        loaded.model.config.vocab_size,
        length,
        loaded.end,
        suppress=loaded.suppress,
        begin_suppress=loaded.begin_suppress,
        timestamp_begin=config.no_timestamps_token_id + 1 if timestamps else -1,
        max_initial_timestamp=-1 if initial is None or not timestamps else initial,
        device=loaded.model.device,
    )


class Choice:
    """Of Q queries in each row; its results have fixed addresses.

    topk: `argmax`, the largest logit of a token that isn't suppressed, without its probability; `torch`, all
    rules and log-probabilities by some forty operations; `fused`, the same by one kernel on a GPU.
    """

    def __init__(
        self, state: DecodeState, rules: LogitRules, topk: str, queries: int, first: bool = False
    ) -> None:
        """first: of the first token after the prompt, and of no other. ValueError for rules that `argmax`
        doesn't know."""
        if topk == "argmax" and (rules.timestamp_begin >= 0 or bool((rules.forced >= 0).any())):
            raise ValueError("topk=argmax knows of suppressed tokens only, not of timestamps or forced ones")
        self._state = state
        self._rules = rules
        self._topk = topk
        self._banned = (rules.banned & (NEVER | NOT_FIRST if first else NEVER)) != 0
        count, device = state.rows * queries, state.history.device
        self._ids = torch.zeros(count, 1, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(count, 1, device=device)
        self._logsumexp = torch.zeros(count, device=device)

    def __call__(self, logits: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The choices and their log-probabilities (0 with argmax), [B, Q] each. logits: [B * Q, V]; places:
        int64 [B, Q], where in history the tokens stand that the logits follow."""
        given = (logits, self._state.history, places.flatten(), self._state.begin, self._rules)
        ids, logprobs = self._ids, self._logprobs
        if self._topk == "argmax":
            ids = logits.masked_fill(self._banned, -torch.inf).argmax(-1)
        elif self._topk == "fused":
            fused_topk(*given, ids, logprobs, self._logsumexp, pdl=True)
        else:
            ids, logprobs, _ = reference(*given, k=1)
        return ids.view(places.shape), logprobs.view(places.shape)
