"""The decoder of this project's own kernels: a StaticDecoder's weights, packed for them, and its caches."""

from __future__ import annotations

import torch
from torch import nn

from experiments.static_decoder import StaticDecoder
from harness.errors import UserError
from kernels import decoder_step
from kernels.decoder_step import DecoderStep, Layer, Matrix, Weights


class FusedDecoder:
    """The `Network` of kernels/decoder_step.cu: one row, up to 8 queries; more go through `static`."""

    def __init__(self, static: StaticDecoder) -> None:
        """Raises UserError for a decoder that the kernels can't compute."""
        _, _, _, heads, _, head_size = static.own_cache.shape
        mlp = len(_matrix(static.layers[0].mlp_in).data)
        if static.own_cache.dtype != torch.float16:
            raise UserError(
                f"decoder=fused computes in float16, not in {static.own_cache.dtype}", "decoder=static"
            )
        problem = decoder_step.obstacle(heads * head_size, heads, mlp)
        if problem:
            raise UserError(f"decoder=fused can't be used with {problem}", "decoder=static")
        self.cross_cache = static.cross_cache
        self.begin_window = static.begin_window
        self._static = static
        self._weights = pack(static)
        self._steps: dict[int, DecoderStep] = {}  # by number of queries

    def logits(self, history: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of up to 8 queries, float32 [Q, V]; overwritten by the next call with as many."""
        queries = places.shape[1]
        if queries not in self._steps:
            caches = self._static.own_cache, self._static.cross_cache
            self._steps[queries] = DecoderStep(self._weights, *caches, queries)
        return self._steps[queries](history, places)

    def logits_at(self, history: torch.Tensor, places: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Of one query, [1, V]; prompts of any length."""
        if places.shape[1] > decoder_step.MAX_QUERIES:
            return self._static.logits_at(history, places, query)
        return self.logits(history, places)[query]


def pack(decoder: StaticDecoder) -> Weights:
    """The weights of `decoder` as the kernels want them; a copy, but for embeddings and vocabulary."""
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
    device = decoder.embed.weight.device
    return decoder_step.pack(
        layers,
        vocabulary=_matrix(decoder.head).first(decoder.embed.num_embeddings),
        last_norm=_norm(decoder.norm),
        token_embedding=decoder.embed.weight.detach(),
        position_embedding=decoder.places,
        multiprocessors=torch.cuda.get_device_properties(device).multi_processor_count,
    )


def _matrix(linear: nn.Module) -> Matrix:
    """Of a linear layer, or of one that quantize=int8 put in its place."""
    if isinstance(linear, nn.Linear):
        return Matrix.of(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())
    data, bias = linear.qdata, linear.bias
    rows = data.new_zeros(len(data), dtype=torch.float32)
    return Matrix(data, linear.scale.flatten().float(), rows if bias is None else bias.detach().float())


def _norm(norm: nn.LayerNorm) -> torch.Tensor:
    return torch.stack([norm.weight, norm.bias]).detach().float()
