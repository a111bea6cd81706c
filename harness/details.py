"""What pages show of a run's trace: computed once, kept for the pages of a sweep and of what is published."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import moved
from harness.phases import DECODE, DECODE_STEP
from harness.record import write_json

if TYPE_CHECKING:
    from analysis.html import Traced

DETAIL_JSON = "detail.json"


def save(shown: Traced, folder: Path) -> None:
    """Keep in a run's folder what `load` reads; what is known of its memory traffic in a file of its own."""
    write_json(folder / DETAIL_JSON, asdict(replace(shown, memory=None)))
    if shown.memory is not None and moved.known(shown.memory):
        moved.save(shown.memory, folder / moved.MEMORY_JSON)


def load(folder: Path, label: str) -> Traced | None:
    """What `save` kept, by another label; None if there is nothing that this version understands."""
    from analysis.html.breakdown import Breakdown
    from analysis.html.longest import Gap
    from analysis.html.view import Pattern, Phase, Traced

    try:
        kept = json.loads((folder / DETAIL_JSON).read_text())
        lists = {"gaps": Gap, "patterns": Pattern, "phases": Phase}
        kept |= {name: [kind(**one) for one in kept[name]] for name, kind in lists.items()}
        bar = Breakdown(**_bar(kept) | {"label": label})
        memory = moved.load(folder / moved.MEMORY_JSON)
        return Traced(**kept | {"label": label, "bar": bar, "memory": memory})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bar(kept: dict[str, Any]) -> dict[str, Any]:
    """The bar of what was kept. An older version counted the kernels and calls around decode steps among
    theirs, and did not say which kernels are whole graphs."""
    bar: dict[str, Any] = kept["bar"]
    if "graphs" in bar:
        return bar
    phases = {one.name: one for one in kept["phases"]}
    if bar["tokens"] and DECODE_STEP in phases:
        bar = bar | {"kernels": phases[DECODE_STEP].kernels}
    ours = [one for one in kept["kernels"] if one["kind"] == "graph"]
    if DECODE in phases:
        ours = [one for one in ours if re.search(r"(^|, )decode($|[.,])", one["phases"])]
    graphs = sum(one["count"] for one in ours)
    return bar | {"graphs": graphs} | ({} if bar["tokens"] else {"launch_calls": None})
