"""Colours and words that every picture shares, whether matplotlib, HTML or Perfetto draws it."""

from __future__ import annotations

# From Okabe and Ito's palette and Tol's, mixed so that any two differ by ΔE ≥ 18 (CIELAB, 1976) for normal,
# protanopic, deuteranopic and tritanopic eyes (Machado et al. 2009); `host`, the usual culprit, is loudest.
CAUSE_COLOUR = {
    "host": "#D55E00",
    "sync": "#AA4499",
    "api": "#F0E442",
    "launch": "#FDBF6F",
    "dependency": "#332288",
    "graph": "#009E73",
    "dispatch": "#78C4EC",
    "profiler": "#4A4A4A",
    "unknown": "#D6D9DD",
}
CAUSE_LABEL = {
    "host": "host's own code, nothing launched yet",
    "sync": "host waits in a synchronising call",
    "api": "host is inside another CUDA call",
    "launch": "the launch itself, call to start",
    "dependency": "launched in time, waits for other work",
    "graph": "between nodes of a CUDA graph",
    "dispatch": "launched in time, back to back",
    "profiler": "the profiler's own overhead",
    "unknown": "unknown: the trace can't tell",
}
HOST = "#E69F00"
DEVICE = "#1F3A5F"
COPY = "#56B4E9"
MUTED = "#6B7280"
FAINT = "#D1D5DB"
INK = "#111827"
