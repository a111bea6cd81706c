"""The k best next tokens and their log-probabilities under Whisper's rules."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from kernels import build
from kernels.checks import expect
from kernels.logit_rules import LogitRules, masked_logits

SOURCE = Path(__file__).with_suffix(".cu")
MAX_K = 8
_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


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
    ids = scores.argmax(-1, keepdim=True) if k == 1 else _best(scores, k)  # argmax takes the first of equals
    values = scores.gather(1, ids)
    logsumexp = scores.logsumexp(-1)
    left = values > -torch.inf
    logprobs = torch.where(left, values - logsumexp[:, None], -torch.inf)
    return torch.where(left, ids, rules.end), logprobs, logsumexp


def _best(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Ids [N, k] of the largest scores, of equals the smallest ids; torch.topk takes any of equals."""
    last = scores.shape[1] - 1
    # One integer that sorts by value, then by smaller id: the bits of a float, negative ones reversed.
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 is no smaller than 0.0
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    keys = (ordered << 32) | (last - torch.arange(last + 1, device=scores.device))
    return last - (keys.topk(k).values & 0xFFFFFFFF)


def fused_topk(
    logits: torch.Tensor,
    history: torch.Tensor,
    positions: torch.Tensor,
    begin: torch.Tensor,
    rules: LogitRules,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
    logsumexp: torch.Tensor,
    pdl: bool = False,
) -> None:
    """The same as `reference`, into ids, logprobs and logsumexp; k is the width of ids, at most MAX_K.

    On CUDA one launch on the current stream, which allocates nothing: what a captured graph points to are
    these tensors and no others. Rows of logits may be further apart than V. pdl: programmatic dependent
    launch, the kernel may be started while the one before it in the stream still runs (it waits for its
    results). Raises ValueError for tensors that don't fit, UserError without nvcc.
    """
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
        pdl,
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
    pdl: bool = False,
) -> None:
    _check(logits, history, positions, begin, banned, forced, ids, logprobs, logsumexp)
    rules = LogitRules(banned, forced, end, timestamp_begin, max_initial_timestamp)
    found = reference(logits, history, positions, begin, rules, ids.shape[1])
    for out, result in zip((ids, logprobs, logsumexp), found, strict=True):
        out.copy_(result)


@fused_topk_out.register_fake
def _(*arguments: object) -> None:
    return None


class _Problem(ctypes.Structure):
    """Problem in fused_topk/logit_rows.cuh."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("logits", "history", "positions", "begin", "banned", "forced")
        ),
        *((name, ctypes.c_void_p) for name in ("ids", "logprobs", "logsumexp")),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("vocabulary", "queries", "length", "k")),
        *((name, ctypes.c_int) for name in ("end", "timestamp_begin", "max_initial_timestamp")),
    )


@fused_topk_out.register_kernel("cuda")
def _(
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
    pdl: bool = False,
) -> None:
    tensors = (logits, history, positions, begin, banned, forced, ids, logprobs, logsumexp)
    _check(*tensors)
    rows, vocabulary = logits.shape
    problem = _Problem(
        *(tensor.data_ptr() for tensor in tensors),
        logits.stride(0),
        vocabulary,
        rows // history.shape[0],
        history.shape[1],
        ids.shape[1],
        end,
        timestamp_begin,
        max_initial_timestamp,
    )
    with torch.cuda.device(logits.device):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        launch = build.library(SOURCE, least=90).fused_topk
        build.check(launch(ctypes.byref(problem), rows, _TYPES[logits.dtype], int(pdl), stream), "fused_topk")


def _check(
    logits: torch.Tensor,
    history: torch.Tensor,
    positions: torch.Tensor,
    begin: torch.Tensor,
    banned: torch.Tensor,
    forced: torch.Tensor,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
    logsumexp: torch.Tensor,
) -> None:
    (rows, vocabulary), (batch, length), k = logits.shape, history.shape, ids.shape[1]
    if logits.dtype not in _TYPES or logits.stride(1) != 1:
        raise ValueError(
            f"logits are {logits.dtype} with strides {logits.stride()}; float, one after another"
        )
    if rows == 0 or rows % batch:
        raise ValueError(f"{rows} rows of logits can't belong to {batch} rows of history")
    if not 1 <= k <= min(MAX_K, vocabulary):
        raise ValueError(f"k is {k}, not between 1 and {min(MAX_K, vocabulary)}")
    if banned.data_ptr() % 8:
        raise ValueError("banned has to begin at a multiple of 8 bytes")
    expect("history", history, logits, torch.long, batch, length)
    expect("positions", positions, logits, torch.long, rows)
    expect("begin", begin, logits, torch.long, batch)
    expect("banned", banned, logits, torch.uint8, vocabulary)
    expect("forced", forced, logits, torch.long, length)
    expect("ids", ids, logits, torch.long, rows, k)
    expect("logprobs", logprobs, logits, torch.float32, rows, k)
    expect("logsumexp", logsumexp, logits, torch.float32, rows)
