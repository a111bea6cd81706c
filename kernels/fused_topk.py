"""The k best next tokens and their log-probabilities under Whisper's rules."""

from __future__ import annotations

import torch

from kernels.logit_rules import LogitRules, masked_logits

MAX_K = 8


def reference(
    logits: torch.Tensor,
    history: torch.Tensor,
    positions: torch.Tensor,
    begin: torch.Tensor,
    rules: LogitRules,
    k: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids int64 [N, k], logprobs float32 [N, k], logsumexp float32 [N]), in torch.

    logits: [N, V], any float type, N = B * Q; query n belongs to row n // Q. history: int64 [B, T].
    positions: int64 [N], index in history of the token that the logits follow; the choice stands behind it,
    and the rules look at history[row, begin[row] : positions[n] + 1]. begin: int64 [B].

    Log-softmax is taken after the rules, as Whisper does, in float32. Of equal logits the smaller id wins;
    NaN counts as -inf. Where no token is left the id is `rules.end` and the log-probability -inf. Nothing
    waits for the device: may be captured and compiled.
    """
    scores = masked_logits(logits, history, positions, begin, rules)
    last = scores.shape[1] - 1
    # One integer that sorts by value, then by smaller id: the bits of a float, negative ones reversed.
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 is no smaller than 0.0
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    keys = (ordered << 32) | (last - torch.arange(last + 1, device=scores.device))
    best = keys.amax(-1, keepdim=True) if k == 1 else keys.topk(k).values
    ids = last - (best & 0xFFFFFFFF)
    values = scores.gather(1, ids)
    logsumexp = scores.logsumexp(-1)
    left = values > -torch.inf
    logprobs = torch.where(left, values - logsumexp[:, None], -torch.inf)
    return torch.where(left, ids, rules.end), logprobs, logsumexp


def fused_topk(
    logits: torch.Tensor,
    history: torch.Tensor,
    positions: torch.Tensor,
    begin: torch.Tensor,
    rules: LogitRules,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
    logsumexp: torch.Tensor,
) -> None:
    """The same as `reference`, into ids, logprobs and logsumexp; k is the width of ids."""
    fused_topk_out(
        logits,
        history,
        positions,
        begin,
        rules.banned,
        rules.forced,
        rules.end,
        rules.timestamp_begin,
        rules.max_initial_timestamp,
        ids,
        logprobs,
        logsumexp,
    )


@torch.library.custom_op("gap_harness::fused_topk_out", mutates_args=("ids", "logprobs", "logsumexp"))
def fused_topk_out(
    logits: torch.Tensor,
    history: torch.Tensor,
    positions: torch.Tensor,
    begin: torch.Tensor,
    banned: torch.Tensor,
    forced: torch.Tensor,
    end: int,
    timestamp_begin: int,
    max_initial_timestamp: int,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
    logsumexp: torch.Tensor,
) -> None:
    rules = LogitRules(banned, forced, end, timestamp_begin, max_initial_timestamp)
    found = reference(logits, history, positions, begin, rules, ids.shape[1])
    for out, result in zip((ids, logprobs, logsumexp), found, strict=True):
        out.copy_(result)


@fused_topk_out.register_fake
def _(*arguments: object) -> None:
    return None
