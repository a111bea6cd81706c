"""Which of the drafted tokens stand, and the state of decoding after them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from kernels import build
from kernels.checks import expect

SOURCE = Path(__file__).with_suffix(".cu")
MAX_QUERIES = 32


def reference(
    history: torch.Tensor,
    position: torch.Tensor,
    chosen: torch.Tensor,
    logprobs: torch.Tensor,
    limit: torch.Tensor,
    end: int,
    running: torch.Tensor,
    any_running: torch.Tensor,
    rounds: torch.Tensor,
    score: torch.Tensor,
) -> None:
    """`accept` in torch, without host synchronisation: may be captured and compiled."""
    queries = torch.arange(chosen.shape[1], device=chosen.device)
    index = torch.arange(history.shape[1], device=chosen.device)
    ahead = (position[:, None] + 1 + queries[:-1]).clamp(max=history.shape[1] - 1)
    confirmed = (history.gather(1, ahead) == chosen[:, :-1]).long().cumprod(1).sum(1)
    first_end = torch.where(chosen == end, queries, chosen.shape[1]).amin(1)
    taken = torch.minimum(confirmed, first_end) + 1
    taken = torch.minimum(taken, limit - position).clamp(min=0) * running
    offset = index - position[:, None] - 1
    tokens = chosen.gather(1, offset.clamp(0, chosen.shape[1] - 1))
    history.copy_(torch.where((offset >= 0) & (offset < taken[:, None]), tokens, history))
    score.add_(torch.where(queries < taken[:, None], logprobs, 0.0).sum(1))
    rounds.add_(running)
    position.add_(taken)
    running.mul_((first_end >= taken) & (position < limit))
    any_running.copy_(running.amax(0, keepdim=True))


@torch.library.custom_op(
    "gap_harness::accept",
    mutates_args=("history", "position", "running", "any_running", "rounds", "score"),
)
def accept(
    history: torch.Tensor,
    position: torch.Tensor,
    chosen: torch.Tensor,
    logprobs: torch.Tensor,
    limit: torch.Tensor,
    end: int,
    running: torch.Tensor,
    any_running: torch.Tensor,
    rounds: torch.Tensor,
    score: torch.Tensor,
    pdl: bool = False,
) -> None:
    """Take what the model confirms of the drafts, and its own next token, in place.

    history: int64 [B, T]; behind position, int64 [B], stand Q - 1 drafts. chosen, logprobs: [B, Q], what the
    model chose behind the last known token and behind each draft. limit: int64 [B], last index that may be
    filled. running: int32 [B]. any_running: int32 [1]. rounds: int64 [B]. score: float32 [B].

    A running row takes its n leading drafts that equal the choice and one choice more, up to the first end
    token and up to limit: position += taken, rounds += 1, score += their log-probabilities; it stops at the
    end token and at limit. Other rows stay as they are. Drafts that failed stay behind position and are
    overwritten later: nothing else has to be rolled back. Greedy decoding is Q = 1.

    pdl: programmatic dependent launch, see `fused_topk`. Raises ValueError for tensors that don't fit. On
    CUDA one launch, or `reference` where the kernel has an `obstacle`.
    """
    _check(history, position, chosen, logprobs, limit, running, any_running, rounds, score)
    reference(history, position, chosen, logprobs, limit, end, running, any_running, rounds, score)


def obstacle() -> str | None:
    """Why the kernel can't be had for the current GPU, or None if it can: every captured round accepts, also
    those of scopes without another kernel of this project, and these need no nvcc."""
    return build.obstacle(SOURCE)


@accept.register_fake
def _(*arguments: object) -> None:
    return None


class _State(ctypes.Structure):
    """State in accept.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("history", "position", "chosen", "logprobs", "limit")),
        *((name, ctypes.c_void_p) for name in ("running", "any_running", "rounds", "score")),
        ("end", ctypes.c_int64),
        *((name, ctypes.c_int) for name in ("rows", "length", "queries")),
    )


@accept.register_kernel("cuda")
def _(
    history: torch.Tensor,
    position: torch.Tensor,
    chosen: torch.Tensor,
    logprobs: torch.Tensor,
    limit: torch.Tensor,
    end: int,
    running: torch.Tensor,
    any_running: torch.Tensor,
    rounds: torch.Tensor,
    score: torch.Tensor,
    pdl: bool = False,
) -> None:
    tensors = (history, position, chosen, logprobs, limit, running, any_running, rounds, score)
    _check(*tensors)
    state = _State(*(tensor.data_ptr() for tensor in tensors), end, *history.shape, chosen.shape[1])
    with torch.cuda.device(history.device):
        if obstacle():
            reference(history, position, chosen, logprobs, limit, end, running, any_running, rounds, score)
            return
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        build.check(build.library(SOURCE).accept_drafts(ctypes.byref(state), int(pdl), stream), "accept")


def _check(
    history: torch.Tensor,
    position: torch.Tensor,
    chosen: torch.Tensor,
    logprobs: torch.Tensor,
    limit: torch.Tensor,
    running: torch.Tensor,
    any_running: torch.Tensor,
    rounds: torch.Tensor,
    score: torch.Tensor,
) -> None:
    (batch, length), queries = history.shape, chosen.shape[1]
    if not 1 <= queries <= MAX_QUERIES:
        raise ValueError(f"{queries} choices a row, not 1 to {MAX_QUERIES}")
    expect("history", history, history, torch.long, batch, length)
    expect("position", position, history, torch.long, batch)
    expect("chosen", chosen, history, torch.long, batch, queries)
    expect("logprobs", logprobs, history, torch.float32, batch, queries)
    expect("limit", limit, history, torch.long, batch)
    expect("running", running, history, torch.int32, batch)
    expect("any_running", any_running, history, torch.int32, 1)
    expect("rounds", rounds, history, torch.long, batch)
    expect("score", score, history, torch.float32, batch)
