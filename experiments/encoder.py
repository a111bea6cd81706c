"""Whisper's encoder: called as it is, or captured as a CUDA graph, compiled before or not."""

from __future__ import annotations

import torch
from torch import nn

from experiments.graphs import capture


class Encoder:
    """Of up to B windows, into `encoded` [B, S, C], which stays where it is.

    how: `eager`; `manual`, captured for B windows; `compile`, compiled by torch.compile and captured by hand:
    PyTorch's own graphs launch more slowly (pytorch issue 174575). On the CPU it runs as it is. What
    attention may choose from (`attention.kernels`) has to be the same when it is made and when it is called.
    """

    def __init__(self, encoder: nn.Module, how: str, rows: int) -> None:
        config, weight = encoder.config, encoder.conv1.weight
        like = {"dtype": weight.dtype, "device": weight.device}
        frames = config.max_source_positions * encoder.conv1.stride[0] * encoder.conv2.stride[0]
        self._encoder = encoder
        self._features = torch.zeros(rows, config.num_mel_bins, frames, **like)
        self.encoded = torch.zeros(rows, config.max_source_positions, config.d_model, **like)
        self._graph: torch.cuda.CUDAGraph | None = None
        if how != "eager" and weight.is_cuda:
            if how == "compile":
                self._encoder = torch.compile(encoder, dynamic=False)
            self._graph = capture(self._encode_all)

    def __call__(self, features: torch.Tensor) -> None:
        """features [1 to B, n_mels, 3000]; rows of `encoded` beyond them are not what they were."""
        count = len(features)
        if self._graph is None:
            self.encoded[:count].copy_(self._encoder(features).last_hidden_state)
        else:
            self._features[:count].copy_(features)
            self._graph.replay()

    def _encode_all(self) -> None:
        self.encoded.copy_(self._encoder(self._features).last_hidden_state)
