"""Memory traffic of a run, from a recording of its own and from ncu: computed once, kept for other pages."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness.record import write_json

if TYPE_CHECKING:
    import pandas as pd

    from analysis import Account, Trace
    from analysis.memory import Memory

MEMORY_JSON = "memory.json"
_TABLES = ("kernels", "phases", "timeline")


def find(trace: Trace, acc: Account, sampled: Path | None, kernels: Path | None) -> Memory:
    """Memory traffic of what was traced.

    sampled: the recording with GPU metrics, which has an account of its own: its times and those of `trace`
    are never mixed. Without it `trace` may hold metrics itself. kernels: what ncu wrote, perhaps packed; it
    counts for more than samples. What can't be read is missing, and `note` or `warnings` say why.
    """
    from analysis import Trace as Recording
    from analysis import TraceError, account
    from analysis.memory import memory, merge

    if sampled is None:
        measured = memory(trace, acc)
    else:
        try:
            with Recording.open(sampled) as own:
                measured = memory(own, account(own))
        except TraceError as error:
            measured = replace(memory(trace, acc), note=f"no memory figures: {error}")
    if kernels is None:
        return measured
    try:
        return merge(measured, _launches(kernels))
    except TraceError as error:
        return replace(measured, warnings=[*measured.warnings, str(error)])


def known(measured: Memory) -> bool:
    """Whether anything was measured at all."""
    return measured.period_ns > 0 or bool((measured.kernels["source"] != "").any())


def save(measured: Memory, path: Path) -> None:
    """Write what `load` reads."""
    tables = {
        name: json.loads(getattr(measured, name).to_json(orient="table", index=False, double_precision=15))
        for name in _TABLES
    }
    plain = {name: value for name, value in vars(measured).items() if name not in _TABLES}
    write_json(path, plain | tables)


def load(path: Path) -> Memory | None:
    """What `save` wrote; None if there is nothing that this version understands."""
    import pandas as pd

    from analysis.memory import Memory

    def table(kept: Any) -> pd.DataFrame:
        return pd.read_json(StringIO(json.dumps(kept)), orient="table", precise_float=True)

    try:
        kept = json.loads(path.read_text())
        return Memory(**kept | {name: table(kept[name]) for name in _TABLES})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _launches(kernels: Path) -> pd.DataFrame:
    from analysis.memory import ncu

    if kernels.suffix != ".xz":
        return ncu.read(kernels)
    with TemporaryDirectory() as folder:
        unpacked = Path(folder) / kernels.stem
        unpacked.write_bytes(lzma.decompress(kernels.read_bytes()))
        return ncu.read(unpacked)
