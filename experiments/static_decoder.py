"""Whisper's decoder with every shape and address constant, so that one step can be captured and replayed.

The weights are those of a transformers checkpoint; the arithmetic follows Whisper (Radford et al. 2022,
arXiv 2212.04356): pre-norm blocks of self-attention, cross-attention and a GELU MLP, tied output embedding.
What changes from token to token lives in tensors on the device: the position, the last token, the caches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer

from experiments.models import LoadedModel

ALIGNMENT = 8  # SDPA's masked kernels want the key length in multiples of this


class StaticDecoder(nn.Module):
    """Batch 1. Buffers, allocated once (L layers, H heads, T cache length, S encoder positions, D head size):

    own_cache [L, 2, 1, H, T, D] keys and values of self-attention; cross_cache [L, 2, 1, H, S, D] those of
    cross-attention; encoded [1, S, H*D]; token [1, 1] the last token chosen; position [1] its place.
    """

    def __init__(self, loaded: LoadedModel, attention: str) -> None:
        super().__init__()
        decoder = loaded.model.get_decoder()
        config = loaded.model.config
        self._fused_attention = attention != "eager"
        self.embed = decoder.embed_tokens
        self.positions = decoder.embed_positions
        self.norm = decoder.layer_norm
        self.head = nn.Linear(*self.embed.weight.shape[::-1], bias=False, device="meta")
        self.head.weight = self.embed.weight
        heads = config.decoder_attention_heads
        self.layers = nn.ModuleList(_Layer(layer, heads, self._fused_attention) for layer in decoder.layers)
        self.cross = _CrossProjection(decoder.layers, heads)
        self._allocate(loaded)

    def _allocate(self, loaded: LoadedModel) -> None:
        config, weight = loaded.model.config, self.embed.weight
        layers, heads = config.decoder_layers, config.decoder_attention_heads
        head_size = config.d_model // heads
        length = len(loaded.prompt) + loaded.max_new_tokens
        length += -length % ALIGNMENT
        source = config.max_source_positions

        def buffer(name: str, *shape: int, dtype: torch.dtype = weight.dtype) -> None:
            # A buffer, so that torch.compile takes its address as constant and allows writing to it.
            self.register_buffer(name, torch.zeros(shape, dtype=dtype, device=weight.device))

        buffer("own_cache", layers, 2, 1, heads, length, head_size)
        buffer("cross_cache", layers, 2, 1, heads, source, head_size)
        buffer("encoded", 1, source, config.d_model)
        buffer("token", 1, 1, dtype=torch.long)
        buffer("position", 1, dtype=torch.long)
        as_ids = {"dtype": torch.long, "device": weight.device}
        self.register_buffer("slots", torch.arange(length, **as_ids))
        self.register_buffer("prompt", torch.tensor([loaded.prompt], **as_ids))
        self.register_buffer("suppress", torch.tensor(loaded.suppress, **as_ids))
        self.register_buffer("begin_suppress", torch.tensor(loaded.begin_suppress, **as_ids))

    def prefill(self) -> None:
        """Project `encoded` to the cross-attention cache, run the prompt, choose the first token."""
        self.cross_cache.copy_(self.cross(self.encoded))
        length = self.prompt.shape[1]
        logits = self._logits(self.prompt, self.slots[:length])
        self._choose(logits.index_fill(-1, self.begin_suppress, -torch.inf), self.slots[length : length + 1])

    def step(self) -> None:
        """Decode one token from the last one: reads and writes buffers only."""
        self._choose(self._logits(self.token, self.position), self.position + 1)

    def _choose(self, logits: torch.Tensor, position: torch.Tensor) -> None:
        """Greedy choice among the allowed tokens; logits [1, V], position [1] of the chosen token."""
        chosen = logits.index_fill(-1, self.suppress, -torch.inf).argmax(-1)
        self.token.copy_(chosen[None])
        self.position.copy_(position)

    def _logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """tokens [1, Q] at positions [Q] -> logits of the last one [1, V]."""
        hidden = self.embed(tokens) + self.positions.weight[positions]
        # Added to the scores rather than a mask of booleans, which SDPA would turn into this in every layer.
        hide_future = torch.where(self.slots <= positions[:, None], 0.0, -torch.inf).to(
            hidden.dtype
        )  # [Q, T]
        for layer, own_cache, cross_cache in zip(self.layers, self.own_cache, self.cross_cache, strict=True):
            hidden = layer(hidden, positions, hide_future, own_cache, cross_cache)
        return self.head(self.norm(hidden[:, -1]))


class _Layer(nn.Module):
    """One decoder block of a transformers checkpoint; query, key and value in one matrix product."""

    def __init__(self, layer: WhisperDecoderLayer, heads: int, fused_attention: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused_attention = fused_attention
        own = layer.self_attn
        self.qkv = _joined([own.q_proj, own.k_proj, own.v_proj])
        self.self_out = own.out_proj
        self.self_norm = layer.self_attn_layer_norm
        self.cross_query = layer.encoder_attn.q_proj
        self.cross_out = layer.encoder_attn.out_proj
        self.cross_norm = layer.encoder_attn_layer_norm
        self.mlp_norm = layer.final_layer_norm
        self.mlp_in, self.mlp_out = layer.fc1, layer.fc2

    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        hide_future: torch.Tensor,
        own_cache: torch.Tensor,
        cross_cache: torch.Tensor,
    ) -> torch.Tensor:
        """hidden [1, Q, C] at positions [Q], hide_future [Q, T], caches [2, 1, H, T or S, D]."""
        qkv = self._split(self.qkv(self.self_norm(hidden)), 3)
        own_cache.index_copy_(3, positions, qkv[1:])
        hidden = hidden + self.self_out(self._attend(qkv[0], own_cache, hide_future))
        (query,) = self._split(self.cross_query(self.cross_norm(hidden)), 1)
        hidden = hidden + self.cross_out(self._attend(query, cross_cache, None))
        return hidden + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(hidden))))

    def _split(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        """[1, Q, parts*C] -> [parts, 1, H, Q, D]."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _attend(self, query: torch.Tensor, cache: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        """Attention of [1, H, Q, D] over keys and values [2, 1, H, T, D] -> [1, Q, C]."""
        keys, values = cache
        if self.fused_attention:
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=added)
        else:
            scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
            if added is not None:
                scores = scores + added
            mixed = scores.softmax(-1) @ values
        return mixed.transpose(1, 2).flatten(2)


class _CrossProjection(nn.Module):
    """Keys and values of every layer's cross-attention in one matrix product, once per window."""

    def __init__(self, layers: nn.ModuleList, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = _joined([p for x in layers for p in (x.encoder_attn.k_proj, x.encoder_attn.v_proj)])
        self.count = len(layers)

    def forward(self, encoded: torch.Tensor) -> torch.Tensor:
        """encoded [1, S, C] -> keys and values [L, 2, 1, H, S, D]."""
        mixed = self.project(encoded).unflatten(-1, (self.count, 2, self.heads, -1))  # [1, S, L, 2, H, D]
        return mixed.permute(2, 3, 0, 4, 1, 5)


def _joined(projections: list[nn.Linear]) -> nn.Linear:
    """Several projections of one input as one; where one has no bias (Whisper's keys), its bias is zero."""
    weight = torch.cat([p.weight for p in projections])
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    biases = [p.weight.new_zeros(p.out_features) if p.bias is None else p.bias for p in projections]
    joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return joined
