"""A whole loop as one graph launch: a captured round is repeated on the device while a flag there is set."""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from pathlib import Path

import torch

from kernels import build

SOURCE = Path(__file__).with_suffix(".cu")


class WhileGraph:
    """Repeats `round` while `running` is not 0; both are looked at by the device only.

    round: captured with `torch.cuda.CUDAGraph(keep_graph=True)`; it is copied, and kept alive because its
        memory is used. running: int32 [1] on the device, written by the round. Raises RuntimeError if CUDA
        refuses the graph (conditional nodes need CUDA >= 12.4).
    """

    def __init__(self, round: torch.cuda.CUDAGraph, running: torch.Tensor) -> None:
        if running.dtype != torch.int32 or running.numel() != 1 or not running.is_cuda:
            raise ValueError(
                f"running is an int32 of one element on the GPU, not {running.dtype} {running.shape}"
            )
        self._kept = round, running
        self._executable = ctypes.c_void_p()
        created = _library().while_graph_create(
            ctypes.c_void_p(round.raw_cuda_graph()),
            ctypes.c_void_p(running.data_ptr()),
            ctypes.byref(self._executable),
        )
        build.check(created, "a loop of graph launches (WHILE node)")
        weakref.finalize(self, _library().while_graph_destroy, self._executable)

    def launch(self) -> None:
        """Queue the whole loop on the current stream."""
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        build.check(_library().while_graph_launch(self._executable, stream), "the launch of a WHILE node")


@cache
def _library() -> ctypes.CDLL:
    return build.library(SOURCE)
