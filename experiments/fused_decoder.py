"""The decoder's step by the project's own kernels: the weights of a StaticDecoder, packed for them."""

from __future__ import annotations

import torch
from torch import nn

from experiments.static_decoder import StaticDecoder
from kernels import decoder_step
from kernels.decoder_step import Layer, Matrix, Weights


def pack(decoder: StaticDecoder) -> Weights:
    """The weights of `decoder` as the kernels want them; a copy, but for embeddings and vocabulary."""
    device = decoder.embed.weight.device
    layers = [
        Layer(
            qkv=_matrix(layer.qkv),
            self_out=_matrix(layer.self_out),
            query=_matrix(layer.cross_query),
            cross_out=_matrix(layer.cross_out),
            mlp_in=_matrix(layer.mlp_in),
            mlp_out=_matrix(layer.mlp_out),
            norms=torch.stack([_norm(n) for n in (layer.self_norm, layer.cross_norm, layer.mlp_norm)]),
        )
        for layer in decoder.layers
    ]
    return decoder_step.pack(
        layers,
        vocabulary=Matrix.of(decoder.embed.weight, None),
        last_norm=_norm(decoder.norm),
        embedding=decoder.embed.weight,
        places=decoder.positions.weight,
        multiprocessors=torch.cuda.get_device_properties(device).multi_processor_count,
    )


def _matrix(linear: nn.Linear) -> Matrix:
    return Matrix.of(linear.weight, linear.bias)


def _norm(norm: nn.LayerNorm) -> torch.Tensor:
    return torch.stack([norm.weight, norm.bias]).float()
