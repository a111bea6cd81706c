"""Linear layers with int8 weights for a few rows of input: y = (x · w) * scale + bias, limited by reading w.

The weights are those of torchao's Int8Tensor, one scale a row of w; they are read where they are. torchao's
own product makes an fp16 copy of them in each call, which costs more than the int8 saved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from harness.errors import UserError
from kernels import build

SOURCE = Path(__file__).with_suffix(".cu")
MAX_ROWS = 8  # rows of x in one call of the kernel
VECTOR = 16  # K is a multiple of it, and bytes that x and w are aligned to
DTYPES = (torch.float16, torch.bfloat16, torch.float32)  # in the order of the launcher's numbers

_TILE = 8  # rows of w that a warp takes
_STEP = 64  # of K, that a warp's load covers
_STEPS = 4  # loads in flight per lane
_MAX_SPLIT = 20  # warps of a block
# More than an H200 has room for at once: from there on whole rows per warp, and no sums across warps.
_MANY_TILES = 2048


@dataclass(frozen=True)
class Plan:
    """How the kernel is laid out.

    split: warps that share rows of w, each with a part of K; warps: of a block, a multiple of split; steps:
    loads of 16 bytes in flight per lane, 4 or 12. overlap: programmatic dependent launch (Hopper and later):
    the weights are loaded while the kernel before still runs, which must not be the one that writes them.
    """

    split: int
    warps: int
    steps: int
    overlap: bool = False


def plan(n: int, k: int) -> Plan:
    """The layout for weights [n, k]: all loads of a small layer at once, small blocks for a vocabulary."""
    if n > _MANY_TILES * _TILE:
        return Plan(split=1, warps=2, steps=_STEPS)
    split = min(_MAX_SPLIT, -(-k // (_STEP * _STEPS)))
    return Plan(split, split, _STEPS)


def reference(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """x [..., K], weight int8 [N, K], scale [N, 1], bias [N] or None -> [..., N], in x's dtype."""
    return F.linear(x, weight.to(x.dtype) * scale, bias)


def int8_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`reference` by the kernel where it can (at most MAX_ROWS rows, K a multiple of 16), else by torch.

    The output is allocated here, outside the op: in a captured graph it comes from the graph's pool and has
    the same address in every replay.
    """
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    if not 0 < len(rows) <= MAX_ROWS or x.shape[-1] % VECTOR:
        return reference(x, weight, scale, bias)
    out = rows.new_empty(len(rows), len(weight))
    int8_linear_out(out, rows, weight, scale, bias)
    return out.view(*x.shape[:-1], len(weight))


@torch.library.custom_op(
    "gap_harness::int8_linear_out",
    mutates_args=("out",),
    device_types="cpu",
    schema="(Tensor(a!) out, Tensor x, Tensor weight, Tensor scale, Tensor? bias) -> ()",
)
def int8_linear_out(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """out [M, N] = (x [M, K] · weight [N, K]) * scale [N, 1] + bias [N]; allocates nothing on a GPU.

    M is 1 to 8, K a multiple of 16; weight is int8, all others of one dtype of DTYPES; all are contiguous, x
    and weight aligned to 16 bytes; else UserError. Sums are float32, in the same order every time.
    """
    _check(out, x, weight, scale, bias)
    out.copy_(reference(x, weight, scale, bias))


@int8_linear_out.register_kernel("cuda")
def _(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> None:
    _check(out, x, weight, scale, bias)
    launch(plan(*weight.shape), out, x, weight, scale, bias)


@int8_linear_out.register_fake
def _(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> None:
    _check_shapes(out, x, weight, scale, bias)


def launch(
    layout: Plan,
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> None:
    """The kernel in a layout of choice, on the current stream; arguments as for the op, but not checked."""
    code = launcher()(
        x.data_ptr(),
        weight.data_ptr(),
        scale.data_ptr(),
        None if bias is None else bias.data_ptr(),
        out.data_ptr(),
        DTYPES.index(x.dtype),
        len(x),
        *weight.shape,
        layout.split,
        layout.warps,
        layout.steps,
        layout.overlap,
        torch.cuda.current_stream(x.device).cuda_stream,
    )
    build.check(code, f"int8_gemv of {tuple(x.shape)} by {tuple(weight.shape)} as {layout}")


@cache
def launcher() -> Callable[..., int]:
    """The compiled launcher. Raises UserError without nvcc, so call it where that can still be told."""
    function = build.library(SOURCE).int8_gemv
    function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int] * 8 + [ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


def _check(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> None:
    _check_shapes(out, x, weight, scale, bias)
    if x.data_ptr() % VECTOR or weight.data_ptr() % VECTOR:
        raise UserError(f"x or weight is not aligned to {VECTOR} bytes", "tensors that own their memory")


def _check_shapes(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> None:
    (m, k), n = x.shape, len(weight)
    channels = [scale] if bias is None else [scale, bias]
    floats = [out, x, *channels]
    if not 0 < m <= MAX_ROWS or k % VECTOR or k == 0:
        raise UserError(
            f"the int8 kernel can't take x of shape [{m}, {k}]",
            f"1 to {MAX_ROWS} rows of a multiple of {VECTOR}, or int8_linear, which takes all",
        )
    if weight.shape != (n, k) or out.shape != (m, n) or any(t.numel() != n for t in channels):
        shapes = [list(t.shape) for t in (out, x, weight, *channels)]
        raise UserError(
            f"the shapes of out, x, weight, scale and bias don't fit: {shapes}",
            "[M, N], [M, K], [N, K], [N, 1], [N]",
        )
    if weight.dtype != torch.int8 or x.dtype not in DTYPES or any(t.dtype != x.dtype for t in floats):
        raise UserError(
            f"weight is {weight.dtype}, out, x, scale and bias are {[t.dtype for t in floats]}",
            "int8, and one of float16, bfloat16, float32 for all others",
        )
    if any(not t.is_contiguous() or t.device != x.device for t in (weight, *floats)):
        raise UserError("the int8 kernel needs contiguous tensors of one device", "x.contiguous()")
