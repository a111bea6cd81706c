"""Whisper's decoder with every shape and address constant, so that one step can be captured and replayed.

The weights are those of a transformers checkpoint; the arithmetic follows Whisper (Radford et al. 2022,
arXiv 2212.04356): pre-norm blocks of self-attention, cross-attention and a GELU MLP, tied output embedding.
What changes from token to token lives in tensors on the device, and each row has positions of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperDecoderLayer

from experiments import cache_attention
from experiments.cache_attention import CacheAttention, Seen

ALIGNMENT = 8  # SDPA's masked kernels want the key length in multiples of this


class StaticDecoder(nn.Module):
    """The `Network` of torch operations. Buffers, allocated once (L layers, B rows, H heads, T cache length,
    S encoder positions, D head size):

    own_cache [L, 2, B, H, T, D] keys and values of self-attention; cross_cache [L, 2, B, H, S, D] those of
    cross-attention. Modules that hold weights of a step: layers, and head, the tied vocabulary projection.
    """

    own_cache: torch.Tensor
    cross_cache: torch.Tensor

    def __init__(
        self,
        decoder: WhisperDecoder,
        attention: str,
        rows: int = 1,
        length: int | None = None,
        cross_cache: torch.Tensor | None = None,
    ) -> None:
        """attention: as in `cache_attention.attention`; length: T, by default the decoder's positions;
        cross_cache: one that another network fills."""
        super().__init__()
        config = decoder.config
        heads = config.decoder_attention_heads
        dtype = decoder.embed_tokens.weight.dtype
        attend = cache_attention.attention(attention, heads, config.d_model // heads, dtype)
        self.norm = decoder.layer_norm
        self.embed = decoder.embed_tokens
        self.layers = nn.ModuleList(_Layer(layer, attend) for layer in decoder.layers)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False, device="meta")
        self.head.weight = _filled_up(self.embed.weight)
        self.cross = None if cross_cache is not None else _CrossProjection(decoder.layers, heads)
        self._allocate(decoder, rows, aligned(length or config.max_target_positions), cross_cache)
        self.eval()

    def _allocate(
        self, decoder: WhisperDecoder, rows: int, length: int, cross_cache: torch.Tensor | None
    ) -> None:
        config, weight = decoder.config, self.embed.weight
        layers, heads = len(self.layers), config.decoder_attention_heads
        head_size = config.d_model // heads
        like = {"dtype": weight.dtype, "device": weight.device}
        if cross_cache is None:
            shape = (layers, 2, rows, heads, config.max_source_positions, head_size)
            cross_cache = torch.zeros(shape, **like)
        # Buffers, so that torch.compile takes their addresses as constant and allows writing to them.
        self.register_buffer("cross_cache", cross_cache)
        self.register_buffer("own_cache", torch.zeros(layers, 2, rows, heads, length, head_size, **like))
        self.register_buffer("slots", torch.arange(length, device=weight.device))
        self.register_buffer("row", torch.arange(rows, device=weight.device))
        # Drafts may stand behind the last position that the model knows; what is computed there is not taken.
        known = decoder.embed_positions.weight.detach()
        self.register_buffer("places", known[self.slots.clamp(max=len(known) - 1)])

    def begin_window(self, encoded: torch.Tensor) -> None:
        """Fill the cross-attention cache from the encoder's output [B, S, C], unless it is shared, and empty
        the other: a NaN that a window has left there would get through the mask into all later ones."""
        self.own_cache.zero_()
        if self.cross is not None:
            self.cross_cache.copy_(self.cross(encoded))

    def logits(self, history: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """history int64 [B, T], places int64 [B, Q] -> logits [B * Q, V]."""
        hidden = self._hidden(history.gather(1, places), places)
        return self._scores(hidden.flatten(0, 1))

    def logits_at(self, history: torch.Tensor, places: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """The same, but only of query number `query` int64 [B] in each row: [B, V]."""
        hidden = self._hidden(history.gather(1, places), places)
        return self._scores(hidden[self.row, query])

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, C] -> logits [N, V], whose rows may stand further apart than V."""
        return self.head(self.norm(hidden))[:, : self.embed.num_embeddings]

    def _hidden(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """tokens, positions [B, Q] -> [B, Q, C] before the last norm."""
        hidden = self.embed(tokens) + self.places[positions]
        hide_future = torch.where(self.slots <= positions[:, None, :, None], 0.0, -torch.inf).to(hidden.dtype)
        seen = Seen(positions.contiguous(), (self.row[:, None], positions), hide_future)
        for layer, own_cache, cross_cache in zip(self.layers, self.own_cache, self.cross_cache, strict=True):
            hidden = layer(hidden, seen, own_cache, cross_cache)
        return hidden


def aligned(length: int) -> int:
    """The least length of a cache that holds `length` and that SDPA's masked kernels take."""
    return length + -length % ALIGNMENT


def _filled_up(embedding: nn.Parameter) -> nn.Parameter:
    """The weights [V, C] of the tied projection, with rows of zeros up to a multiple of 8.

    Whisper's 51865 is odd, for which cuBLAS has slower kernels: on an H200 1 row takes 29.5 instead of 23.0
    us, 4 rows 57 instead of 24, 64 rows 155 instead of 25.
    """
    missing = -len(embedding) % ALIGNMENT
    return nn.Parameter(F.pad(embedding, (0, 0, 0, missing)), requires_grad=False) if missing else embedding


class _Layer(nn.Module):
    """One decoder block of a transformers checkpoint; query, key and value in one matrix product."""

    def __init__(self, layer: WhisperDecoderLayer, attention: CacheAttention) -> None:
        super().__init__()
        self.attention = attention
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
        self, hidden: torch.Tensor, seen: Seen, own_cache: torch.Tensor, cross_cache: torch.Tensor
    ) -> torch.Tensor:
        """hidden [B, Q, C], caches [2, B, H, T or S, D]."""
        qkv = self.qkv(self.self_norm(hidden))
        hidden = hidden + self.self_out(self.attention.own(qkv, own_cache, seen))
        query = self.cross_query(self.cross_norm(hidden))
        hidden = hidden + self.cross_out(self.attention.cross(query, cross_cache))
        return hidden + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(hidden))))


class _CrossProjection(nn.Module):
    """Keys and values of every layer's cross-attention in one matrix product, once per window."""

    def __init__(self, layers: nn.ModuleList, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = _joined([p for x in layers for p in (x.encoder_attn.k_proj, x.encoder_attn.v_proj)])
        self.count = len(layers)

    def forward(self, encoded: torch.Tensor) -> torch.Tensor:
        """encoded [B, S, C] -> keys and values [L, 2, B, H, S, D]."""
        mixed = self.project(encoded).unflatten(-1, (self.count, 2, self.heads, -1))  # [B, S, L, 2, H, D]
        return mixed.permute(2, 3, 0, 4, 1, 5)


def _joined(projections: list[nn.Linear]) -> nn.Linear:
    """Several projections of one input as one; where one has no bias (Whisper's keys), its bias is zero."""
    weight = torch.cat([p.weight for p in projections])
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    biases = [p.weight.new_zeros(p.out_features) if p.bias is None else p.bias for p in projections]
    joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return joined
