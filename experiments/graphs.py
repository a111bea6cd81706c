"""Ways to run a function that only reads and writes fixed tensors: as it is, or captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Libraries pick algorithms and allocate workspaces in the first calls; none of that may be captured.
WARMUP_CALLS = 3


def runner(body: Callable[[], None], how: str, device: str) -> Callable[[], object]:
    """Something to call in place of `body`.

    how: `none`; `manual`, one torch.cuda.CUDAGraph, captured here; `compile`, torch.compile with
    mode="reduce-overhead", compiled and captured by its first calls. On the CPU there are no graphs and the
    body runs as it is: the same tokens, and nothing to be learned about launches.
    """
    if how == "none" or device == "cpu":
        return body
    if how == "manual":
        return capture(body).replay
    return torch.compile(body, mode="reduce-overhead", fullgraph=True, dynamic=False)


def capture(body: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Warm `body` up on a side stream and capture one call of it there.

    The body must not allocate anything that outlives it, and its tensors must live as long as the graph.
    """
    # One stream for both: cuBLAS keeps a workspace per stream, and one first made during capture would belong
    # to the graph's memory and be used by others after the graph is gone.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP_CALLS):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        body()
    return graph
