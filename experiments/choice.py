"""Greedy choice of the next token under Whisper's rules."""

from __future__ import annotations

import torch

from experiments.decode_state import DecodeState
from experiments.models import LoadedModel
from kernels.fused_topk import fused_topk, reference
from kernels.logit_rules import LogitRules


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

    topk: `torch`, the reference; `fused`, one kernel on a GPU.
    """

    def __init__(self, state: DecodeState, rules: LogitRules, topk: str, queries: int) -> None:
        self._state = state
        self._rules = rules
        self._fused = topk == "fused"
        count, device = state.rows * queries, state.history.device
        self._ids = torch.zeros(count, 1, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(count, 1, device=device)
        self._logsumexp = torch.zeros(count, device=device)

    def __call__(self, logits: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The choices and their log-probabilities, [B, Q] each. logits: [B * Q, V]; places: int64 [B, Q],
        where in history the tokens stand that the logits follow."""
        given = (logits, self._state.history, places.flatten(), self._state.begin, self._rules)
        if self._fused:
            fused_topk(*given, self._ids, self._logprobs, self._logsumexp, pdl=True)
            ids, logprobs = self._ids, self._logprobs
        else:
            ids, logprobs, _ = reference(*given, k=1)
        return ids.view(places.shape), logprobs.view(places.shape)
