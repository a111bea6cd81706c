"""Weights of 8 bits for the decoder's linear layers: torchao quantises them, few rows go through our kernel.

At batch 1 a step is limited by the bytes of its weights: half the bytes are worth up to twice the speed, as
long as no kernel writes a copy of the weights in 16 bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization import (
    Float8Tensor,
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8Tensor,
    Int8WeightOnlyConfig,
    PerRow,
    quantize_,
)

from experiments.static_decoder import StaticDecoder
from harness.errors import UserError
from kernels import int8_gemv

# Inductor keeps its own settings: with torchao's, everything that this process compiles later takes minutes.
_CONFIGS: dict[str, Callable[[], AOBaseConfig]] = {
    "int8": lambda: Int8WeightOnlyConfig(version=2, set_inductor_config=False),
    "int8_dynamic": lambda: Int8DynamicActivationInt8WeightConfig(version=2, set_inductor_config=False),
    "float8": lambda: Float8WeightOnlyConfig(set_inductor_config=False),
}
HOW = ("none", *_CONFIGS)


def apply(decoder: StaticDecoder, how: str, device: str) -> None:
    """Replace the decoder's linear layers by quantised ones, before a graph is captured.

    how: `none`; `int8`, symmetric weights with one scale a row; `int8_dynamic`, the input rounded to int8 as
    well, row by row; `float8`, e4m3 weights, which torchao turns back in each call. The vocabulary projection
    gets a quantised copy of its own, the embedding stays as it is, and so do the checkpoint's modules, which
    others go on using. Raises UserError for another `how`, and on a GPU if the kernel can't be compiled.

    The projection to the cross-attention's keys and values stays in 16 bits: one product with 1500 rows per
    window, limited by arithmetic and not by the bytes of its weights, and all that is decoded depends on it.
    """
    if how == "none":
        return
    if how not in _CONFIGS:
        raise UserError(f"quantize={how} is not known", f"quantize= one of {', '.join(HOW)}")
    if device == "cuda" and how != "float8":
        int8_gemv.launcher()
    once_a_window = set(decoder.cross.modules())
    linears = {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and module not in once_a_window
    }
    for name, linear in linears.items():
        decoder.set_submodule(name, quantized(linear, how))


def quantized(linear: nn.Linear, how: str) -> nn.Module:
    """`linear` with 8-bit weights, as a module of its own; `how` as for `apply`, but not `none`."""
    copy = nn.Linear(linear.in_features, linear.out_features, device="meta")
    copy.weight, copy.bias = linear.weight, linear.bias
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torchao about its own defaults
        quantize_(copy, _CONFIGS[how]())
    if how == "float8":
        _clear_empty_rows(copy.weight)
        return copy
    return Int8Linear(copy.weight, copy.bias, rounds_input=how == "int8_dynamic")


def _clear_empty_rows(weight: Float8Tensor) -> None:
    """torchao divides a row of zeros by its scale, which is 0: NaN, which argmax takes for the largest."""
    empty = weight.scale == 0
    weight.qdata.view(torch.uint8).masked_fill_(empty, 0)
    weight.scale.masked_fill_(empty, 1.0)


class Int8Linear(nn.Module):
    """A linear layer that reads torchao's int8 weights without a copy in 16 bits, if it has at most 8 rows.

    rounds_input: also round the input to int8, by torchao and row by row. The product is the same kernel: for
    few rows integer arithmetic saves nothing, and torchao's (`torch._int_mm`) takes neither less than 17 rows
    nor an odd vocabulary, and can't be captured.
    """

    def __init__(self, weight: Int8Tensor, bias: torch.Tensor | None, rounds_input: bool) -> None:
        super().__init__()
        self.register_buffer("qdata", weight.qdata)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("bias", bias)
        self.rounds_input = rounds_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., K] -> [..., N]."""
        if self.rounds_input:
            x = Int8Tensor.from_hp(x.reshape(-1, x.shape[-1]), PerRow()).dequantize().view(x.shape)
        return int8_gemv.int8_linear(x, self.qdata, self.scale, self.bias)
