"""Which child a number of a run comes from, and what it depends on."""

from __future__ import annotations

_TIMES = (
    "total_ms",
    "features_ms",
    "encode_ms",
    "prefill_ms",
    "decode_ms",
    "ms_per_token",
    "real_time_factor",
)
ERROR_RATES = ("wer", "cer")
AGREEMENT = "token_agreement"
ACCEPTANCE = "acceptance"
_OF_TOKENS = ("tokens", "tokens_per_round", ACCEPTANCE, *ERROR_RATES, AGREEMENT)
SPEEDUP = "speedup"  # ms_per_token of the run that it is compared with, over its own
OVERHEAD = "profiling_overhead"
METRICS_OVERHEAD = "metrics_overhead"
_OF_METRICS = ("dram_gbps", "dram_share", "bytes_per_step", "bytes_per_phase", "bytes_per_token")
FLOOR_MS, FLOOR_RATIO = "decode.floor_ms", "decode.floor_ratio"


def source_of(metric: str) -> str:
    """`measured` (no profiler ran), `traced`, `sampled` (the recording with GPU metrics), or `both` for what
    compares the first with one of the others."""
    if metric in (OVERHEAD, METRICS_OVERHEAD):
        return "both"
    if metric.rpartition(".")[2] in _OF_METRICS:
        return "sampled"
    if metric in (FLOOR_MS, FLOOR_RATIO, SPEEDUP):
        return "measured"
    return "measured" if metric.split(".")[0] in _TIMES + _OF_TOKENS else "traced"


def needs_gpu(metric: str) -> bool:
    """Whether the metric's value on a CPU says nothing about a GPU: all but what follows from the tokens."""
    return metric.split(".")[0] not in _OF_TOKENS
