"""What computes logits, whoever does it: torch operations or kernels of this project."""

from __future__ import annotations

from typing import Protocol

import torch

from experiments.models import LoadedModel
from experiments.options import Options
from experiments.static_decoder import StaticDecoder


class Network(Protocol):
    """A Whisper decoder of B rows with caches of its own, allocated once. All calls may be captured.

    A query is a token of a row. It sees what the row's cache holds up to its position, and writes its own
    keys and values there. The positions of a row are different ones.
    """

    @property
    def cross_cache(self) -> torch.Tensor:
        """[L, 2, B, H, S, D], keys and values of cross-attention."""

    def begin_window(self, encoded: torch.Tensor) -> None:
        """Forget the windows before, and fill the cross-attention cache from the encoder's output
        [B, S, C]."""

    def logits(self, history: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Logits [B * Q, V] of the tokens that stand at `places` int64 [B, Q] of `history` int64 [B, T]; the
        places of a row follow each other, and are the tokens' positions, too."""

    def logits_at(self, history: torch.Tensor, places: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """The same, but only of query number `query` int64 [B] in each row: [B, V]. For prompts."""


def make(loaded: LoadedModel, options: Options, length: int, device: str) -> Network:
    """The network that `options` ask for, with room for `length` tokens in each row."""
    attention = attention_of(options, device)
    network = StaticDecoder(loaded.model.get_decoder(), attention, options.batch, length)
    if options.quantize != "none":
        from experiments import quantize

        quantize.apply(network, options.quantize, device)
    return computed(network, options, device)


def attention_of(options: Options, device: str) -> str:
    """What a StaticDecoder attends by, for `cache_attention.attention`. With decoder=fused it serves the rows
    of a batch, and torch computes all else: matrix products of many rows are what cuBLAS is good at."""
    by_kernel = options.attention == "kernel" or options.decoder == "fused"
    if by_kernel:
        return "kernel" if device == "cuda" else "sdpa"
    return options.attention


def computed(decoder: StaticDecoder, options: Options, device: str) -> Network:
    """`decoder` as `options` want it computed on a GPU: by kernels of this project, compiled, or as it is.
    Raises UserError where the kernels can't."""
    if options.decoder == "fused" and device == "cuda" and options.batch == 1:
        from experiments.fused_decoder import FusedDecoder

        return FusedDecoder(decoder)
    return _Compiled(decoder) if options.graphs == "compile" and device == "cuda" else decoder


class _Compiled:
    """A network whose `logits` torch.compile has fused. Capturing is left to others: PyTorch's own graphs
    (mode="reduce-overhead") take longer to launch (pytorch issue 174575)."""

    def __init__(self, network: Network) -> None:
        self.cross_cache = network.cross_cache
        self.begin_window = network.begin_window
        self.logits_at = network.logits_at
        self.logits = torch.compile(network.logits, fullgraph=True, dynamic=False)
