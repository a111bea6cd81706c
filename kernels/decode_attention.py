"""Attention of a few new queries of each row over the row's cache of keys and values, in one launch."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
import torch.nn.functional as F

from kernels import build
from kernels.checks import expect

SOURCE = Path(__file__).with_suffix(".cu")
HEAD = 64
MAX_QUERIES = 8
_MAX_SPLITS = 8  # blocks of a cluster


def reference(
    projected: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor | None
) -> torch.Tensor:
    """[B, Q, H * D], in torch.

    projected [B, Q, P, H, D]: with P = 1 the queries, which see all of keys and values [B, H, T, D]; with
    P = 3 queries, keys and values of tokens at positions int64 [B, Q]: keys and values are put there first,
    and a query sees what stands up to its own position.
    """
    query = projected[:, :, 0].transpose(1, 2)
    if positions is None:
        added = None
    else:
        row = torch.arange(len(positions), device=positions.device)[:, None]
        keys.transpose(1, 2)[row, positions] = projected[:, :, 1]
        values.transpose(1, 2)[row, positions] = projected[:, :, 2]
        slots = torch.arange(keys.shape[2], device=positions.device)
        hidden = slots > positions[:, None, :, None]
        added = torch.zeros_like(hidden, dtype=projected.dtype).masked_fill(hidden, -torch.inf)
    mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=added)
    return mixed.transpose(1, 2).flatten(2)


@torch.library.custom_op("gap_harness::decode_attention_out", mutates_args=("out", "keys", "values"))
def decode_attention_out(
    out: torch.Tensor,
    projected: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor | None,
) -> None:
    """`reference` into out [B, Q, H * D]. On CUDA one launch on the current stream that allocates nothing.

    All are contiguous, float16 on CUDA, where D is 64 and Q at most MAX_QUERIES; positions are below T and
    those of a row differ. Raises ValueError for tensors that don't fit, UserError without nvcc.
    """
    _check(out, projected, keys, values, positions)
    out.copy_(reference(projected, keys, values, positions))


@decode_attention_out.register_fake
def _(*arguments: object) -> None:
    return None


class _Problem(ctypes.Structure):
    """Problem in decode_attention.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("projected", "keys", "values", "positions", "out")),
        *((name, ctypes.c_int) for name in ("heads", "queries", "parts", "length")),
    )


@decode_attention_out.register_kernel("cuda")
def _(
    out: torch.Tensor,
    projected: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor | None,
) -> None:
    _check(out, projected, keys, values, positions)
    rows, queries, parts, heads, size = projected.shape
    if size != HEAD or queries > MAX_QUERIES or projected.dtype != torch.float16:
        raise ValueError(
            f"the kernel takes float16, heads of {HEAD} and at most {MAX_QUERIES} queries, not "
            f"{projected.dtype}, {size} and {queries}"
        )
    tensors = (projected, keys, values, positions, out)
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    problem = _Problem(*pointers, heads, queries, parts, keys.shape[2])
    with torch.cuda.device(out.device):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        multiprocessors = torch.cuda.get_device_properties(out.device).multi_processor_count
        code = build.library(SOURCE, least=90).decode_attention(
            ctypes.byref(problem), rows, splits(rows * heads, multiprocessors), stream
        )
    build.check(code, "decode_attention")


def splits(heads: int, multiprocessors: int) -> int:
    """Blocks for each of the heads of all rows: as many as give every multiprocessor two, up to a cluster."""
    count = 1
    while count < _MAX_SPLITS and heads * count < 2 * multiprocessors:
        count *= 2
    return count


def _check(
    out: torch.Tensor,
    projected: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    positions: torch.Tensor | None,
) -> None:
    if projected.dim() != 5 or keys.dim() != 4:
        raise ValueError(f"projected has {projected.dim()} dimensions, keys {keys.dim()}, not 5 and 4")
    rows, queries, _, heads, size = projected.shape
    parts = 1 if positions is None else 3
    dtype = projected.dtype
    expect("projected", projected, out, dtype, rows, queries, parts, heads, size)
    expect("keys", keys, out, dtype, rows, heads, keys.shape[2], size)
    expect("values", values, out, dtype, *keys.shape)
    expect("out", out, out, dtype, rows, queries, heads * size)
    if positions is not None:
        expect("positions", positions, out, torch.int64, rows, queries)
