"""The least that one greedy decode step of Whisper can cost: bytes from memory, and arithmetic.

A step gives one token to each of B rows. It reads every weight of the decoder once, and every cached key and
value of each row once. Bytes over the memory's bandwidth bound it from below (the roofline of Williams,
Waterman and Patterson 2009, doi 10.1145/1498765.1498785) while B is small.

With L layers of width d, MLP width f, S encoder positions, vocabulary V and n cached tokens, this one among
them, the elements are, after the shapes in Whisper (Radford et al. 2022, arXiv 2212.04356):

    weights      L (6 d² + 2 d f) + V d    query, key, value and output of self-attention, query and output of
                                           cross-attention (whose keys and values are cached), MLP, output
    vectors      L (12 d + f) + 2 d        biases and norms
                 B 2 d                     one row of each of the two embeddings
    cross cache  B 2 L S d
    own cache    B 2 L n d                 2 L (n - 1) d read, 2 L d written

What stays in registers or on-chip caches between kernels (activations, logits) costs the floor nothing. A
multiplication with a weight or a cached element counts two FLOPs (Hoffmann et al. 2022, arXiv 2203.15556,
appendix F); norms, softmax and GELU, below one in a hundred of these, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shapes:
    """L, d, f, S and V of a Whisper."""

    layers: int
    width: int
    mlp: int
    positions: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shapes:
        """Those of a transformers.WhisperConfig."""
        return cls(
            layers=config.decoder_layers,
            width=config.d_model,
            mlp=config.decoder_ffn_dim,
            positions=config.max_source_positions,
            vocabulary=config.vocab_size,
        )


@dataclass(frozen=True)
class Floor:
    """Of one decode step: bytes read from and written to memory, and FLOPs. Those of a mean position are no
    whole numbers.
    """

    bytes: float
    flops: float


def decode_step(
    shapes: Shapes, cached: float, element_bytes: int, rows: float = 1, weight_bytes: int | None = None
) -> Floor:
    """The floor of a step with `cached` keys in self-attention, its own included, in each of `rows` rows.

    element_bytes: 2 in fp16; weight_bytes: of a weight, where these are smaller than everything else.

    Linear in `cached` and `rows`, so that of the mean position is the mean over the positions.
    """
    layers, width, mlp = shapes.layers, shapes.width, shapes.mlp
    weights = layers * (6 * width**2 + 2 * width * mlp) + shapes.vocabulary * width
    vectors = layers * (12 * width + mlp) + 2 * width + rows * 2 * width
    caches = rows * 2 * layers * width * (shapes.positions + cached)
    return Floor(
        bytes=weights * (weight_bytes or element_bytes) + (vectors + caches) * element_bytes,
        flops=2 * (rows * weights + caches),
    )
