"""Attention of a StaticDecoder's new tokens over its caches: by torch, or by a kernel of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from harness.errors import UserError
from kernels.decode_attention import HEAD, MAX_QUERIES, decode_attention_out


@dataclass(frozen=True)
class Seen:
    """What the queries of a step see of their rows' caches of T tokens.

    positions: int64 [B, Q], where they stand, and the last that each sees. slots: the same as an index (row
    [B, 1], position [B, Q]). hide_future: [B, 1, Q, T], -inf where a query must not look: added to the scores
    rather than a mask of booleans, which SDPA would turn into this in every layer.
    """

    positions: torch.Tensor
    slots: tuple[torch.Tensor, torch.Tensor]
    hide_future: torch.Tensor


class CacheAttention(Protocol):
    """B rows, Q queries each, H heads of D elements, C = H * D."""

    def own(self, qkv: torch.Tensor, cache: torch.Tensor, seen: Seen) -> torch.Tensor:
        """Put keys and values of qkv [B, Q, 3 * C] into cache [2, B, H, T, D], and attend: [B, Q, C]."""

    def cross(self, query: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        """Attend with query [B, Q, C] to all of cache [2, B, H, S, D]: [B, Q, C]."""


def attention(how: str, heads: int, head_size: int, dtype: torch.dtype) -> CacheAttention:
    """how: `kernel`, that of this project, or an attention of `Options`. Raises UserError for what the kernel
    can't compute."""
    if how == "kernel":
        return KernelAttention(heads, head_size, dtype)
    return TorchAttention(heads, fused=how != "eager")


class TorchAttention:
    """fused: by SDPA, otherwise matrix product, softmax, matrix product."""

    def __init__(self, heads: int, fused: bool) -> None:
        self._heads = heads
        self._fused = fused

    def own(self, qkv: torch.Tensor, cache: torch.Tensor, seen: Seen) -> torch.Tensor:
        split = self._split(qkv, 3)
        cache.permute(1, 3, 0, 2, 4).index_put_(seen.slots, split[1:].permute(1, 3, 0, 2, 4))
        return self._attend(split[0], cache, seen.hide_future)

    def cross(self, query: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        return self._attend(self._split(query, 1)[0], cache, None)

    def _split(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        """[B, Q, parts * C] -> [parts, B, H, Q, D]."""
        return x.unflatten(-1, (parts, self._heads, -1)).permute(2, 0, 3, 1, 4)

    def _attend(self, query: torch.Tensor, cache: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        """[B, H, Q, D] over keys and values [2, B, H, T, D] -> [B, Q, C]."""
        keys, values = cache
        if self._fused:
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=added)
        else:
            scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            if added is not None:
                scores = scores + added
            mixed = scores.softmax(-1) @ values
        return mixed.transpose(1, 2).flatten(2)


class KernelAttention:
    """kernels/decode_attention.cu for up to MAX_QUERIES queries, SDPA for longer prompts."""

    def __init__(self, heads: int, head_size: int, dtype: torch.dtype) -> None:
        """Raises UserError for what the kernel can't compute."""
        if head_size != HEAD or dtype != torch.float16:
            raise UserError(
                f"attention=kernel (and decoder=fused) can't be used with heads of {head_size} elements in "
                f"{dtype}: it takes {HEAD}, as every Whisper has, in float16",
                "decoder=static attention=sdpa",
            )
        self._heads = heads
        self._long = TorchAttention(heads, fused=True)

    def own(self, qkv: torch.Tensor, cache: torch.Tensor, seen: Seen) -> torch.Tensor:
        if qkv.shape[1] > MAX_QUERIES:
            return self._long.own(qkv, cache, seen)
        return self._attend(qkv.unflatten(-1, (3, self._heads, HEAD)), cache, seen.positions)

    def cross(self, query: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        if query.shape[1] > MAX_QUERIES:
            return self._long.cross(query, cache)
        return self._attend(query.unflatten(-1, (1, self._heads, HEAD)), cache, None)

    def _attend(
        self, projected: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor | None
    ) -> torch.Tensor:
        out = projected.new_empty(*projected.shape[:2], self._heads * HEAD)
        decode_attention_out(out, projected, *cache, positions)
        return out
