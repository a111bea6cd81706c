"""What pages show of a run's trace: computed once, kept for the pages of a sweep and of what is published."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import moved
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
        bar = Breakdown(**kept["bar"] | {"label": label})
        memory = moved.load(folder / moved.MEMORY_JSON)
        return Traced(**kept | {"label": label, "bar": bar, "memory": memory})
    except (OSError, ValueError, KeyError, TypeError):
        return None
