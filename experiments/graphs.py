"""A function that only reads and writes fixed tensors, captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Libraries pick algorithms and allocate workspaces in the first calls; none of that may be captured.
WARMUP_CALLS = 3


def capture(body: Callable[[], None], keep_graph: bool = False) -> torch.cuda.CUDAGraph:
    """Warm `body` up on a side stream and capture one call of it there.

    The body must not allocate anything that outlives it, and its tensors must live as long as the graph.
    keep_graph: keep the cudaGraph_t, to be a part of another graph.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP_CALLS):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph(keep_graph=keep_graph)
    # PyTorch keeps cuBLAS's workspace for each stream, and streams come round again. The graph needs one that
    # is its own: from the graph's memory, and used by nobody else when that memory is gone.
    _forget_workspaces()
    with torch.cuda.graph(graph, stream=side):
        body()
    _forget_workspaces()
    return graph


def _forget_workspaces() -> None:
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
