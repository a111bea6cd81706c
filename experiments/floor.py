"""The least that one decode step of Whisper can cost at batch 1: bytes from memory, and arithmetic.

Greedy decoding reads every weight of the decoder once per token, and every cached key and value once. At
batch 1 nothing is read for more than one token, so that bytes over the memory's bandwidth bound the step from
below (the roofline of Williams, Waterman and Patterson 2009, doi 10.1145/1498765.1498785).

With L layers of width d, MLP width f, S encoder positions, vocabulary V and n cached tokens, this one among
them, the elements are, after the shapes in Whisper (Radford et al. 2022, arXiv 2212.04356):

    weights      L (6 d² + 2 d f) + V d    query, key, value and output of self-attention, query and output of
                                           cross-attention (whose keys and values are cached), MLP, output
    vectors      L (12 d + f) + 4 d        biases and norms; one row of each of the two embeddings
    cross cache  2 L S d
    own cache    2 L n d                   2 L (n - 1) d read, 2 L d written

What stays in registers or on-chip caches between kernels (activations, logits) costs the floor nothing. A
multiplication with a weight or a cached element counts two FLOPs (Hoffmann et al. 2022, arXiv 2203.15556,
appendix F); norms, softmax and GELU, below one in a hundred of these, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Shapes(Protocol):
    """A Whisper's shapes, as transformers.WhisperConfig names them."""

    decoder_layers: int
    d_model: int
    decoder_ffn_dim: int
    max_source_positions: int
    vocab_size: int


@dataclass(frozen=True)
class Floor:
    """Of one decode step: bytes read from and written to memory, and FLOPs. Those of a mean position are no
    whole numbers.
    """

    bytes: float
    flops: float


def decode_step(shapes: Shapes, cached: float, element_bytes: int) -> Floor:
    """The floor of a step with `cached` keys in self-attention, its own included; element_bytes: 2 in fp16.

    Linear in `cached`, so that of the mean position is the mean over the positions.
    """
    layers, width, mlp = shapes.decoder_layers, shapes.d_model, shapes.decoder_ffn_dim
    weights = layers * (6 * width**2 + 2 * width * mlp) + shapes.vocab_size * width
    vectors = layers * (12 * width + mlp) + 4 * width
    cross_cache = 2 * layers * shapes.max_source_positions * width
    own_cache = 2 * layers * cached * width
    return Floor(
        bytes=(weights + vectors + cross_cache + own_cache) * element_bytes,
        flops=2 * (weights + cross_cache + own_cache),
    )
