"""`python -m benchmarks.decoder_step`: a decode step of Whisper-small's shapes, by torch and by our kernels.

A step is a CUDA graph of its own, whose launch counts; medians of replays; random weights, batch 1, the cache
half full. A step reads more than the L2 cache holds, so it is cold for whatever comes first. Of an int8
vocabulary alone (40 MB) the L2 cache of an H200 may hold most.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from benchmarks.replays import median_us, run
from experiments import floor, quantize
from experiments.fused_decoder import FusedDecoder, pack
from experiments.static_decoder import StaticDecoder
from harness.environment import gpu
from harness.results import markdown
from kernels.decoder_step import DecoderStep

REPLAYS = 300
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
PLACE, LENGTH = 54, 112  # of the token; of the cache


def measure() -> list[dict[str, Any]]:
    """A dict a row: step, queries, median_us, floor_us (of one query; 0 if the peak bandwidth is unknown)."""
    peak_bps = (gpu() or {}).get("memory_bandwidth_bps") or math.inf
    config = WhisperConfig(vocab_size=51865, d_model=768, decoder_layers=12, decoder_attention_heads=12)
    config.decoder_ffn_dim = 3072
    config._attn_implementation = "sdpa"
    shapes = floor.Shapes.of(config)
    torch.manual_seed(0)
    decoder = WhisperDecoder(config).cuda().half().eval()
    rows: list[dict[str, Any]] = []
    history = torch.randint(50000, (1, LENGTH), device="cuda")
    for how, weight_bytes in (("none", 2), ("int8", 1)):
        static = StaticDecoder(decoder, "sdpa", 1, LENGTH)
        quantize.apply(static, how, "cuda")
        static.cross_cache.normal_()
        static.own_cache.normal_()
        name = "fp16" if how == "none" else how
        least = floor.decode_step(shapes, PLACE + 1, 2, weight_bytes=weight_bytes).bytes / peak_bps * 1e6

        fused, caches = FusedDecoder(static), (static.own_cache, static.cross_cache)
        weights = pack(static)
        alone, last = DecoderStep(weights, *caches, overlap=False), DecoderStep(weights, *caches)
        last._step.layers = 0
        bodies: list[tuple[str, int, Network, float]] = [(f"torch, {name}", 1, static.logits, least)]
        bodies += [(f"kernels, {name}", queries, fused.logits, least) for queries in (1, 2, 4, 5, 8)]
        bodies += [(f"kernels, {name}, without overlap", 1, alone, least)]
        bodies += [(f"vocabulary, {name}", 1, last, weights.vocabulary.nbytes / peak_bps * 1e6)]
        for step, queries, logits, floor_us in bodies:
            places = torch.arange(PLACE, PLACE + queries, device="cuda")[None]
            found = median_us(partial(logits, history, places), warmup=20, replays=REPLAYS)
            rows.append({"step": step, "queries": queries, "median_us": found, "floor_us": floor_us})
    return rows


def report(_: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The figures as text and as JSON."""
    rows = measure()
    lines = []
    for row in rows:
        share = f"{row['floor_us'] / row['median_us']:.0%}" if row["floor_us"] else "–"
        lines.append([row["step"], f"{row['queries']}", f"{row['median_us']:.1f}", share])
    return markdown(["step", "queries", "µs", "of the byte floor"], lines), {"rows": rows}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder_step", description=__doc__)
    return run(parser, report, argv)


if __name__ == "__main__":
    sys.exit(main())
