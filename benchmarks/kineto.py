"""`python -m benchmarks.kineto EXPORT.sqlite TRACE.json`: an export as PyTorch's profiler would write it.

Kernels, CUDA calls and NVTX ranges in the JSON of Kineto, for tools that read nothing else.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_KERNELS = """
SELECT k.start, k.end, k.deviceId, k.contextId, k.streamId, k.correlationId, s.value
FROM CUPTI_ACTIVITY_KIND_KERNEL k JOIN StringIds s ON s.id = k.demangledName ORDER BY k.start"""
_CALLS = """
SELECT r.start, r.end, r.globalTid, r.correlationId, s.value
FROM CUPTI_ACTIVITY_KIND_RUNTIME r JOIN StringIds s ON s.id = r.nameId ORDER BY r.start"""
_RANGES = "SELECT start, end, globalTid, text FROM NVTX_EVENTS WHERE eventType = 59 ORDER BY start"
_HEAD = '{"schemaVersion": 1, "distributedInfo": {"rank": 0, "world_size": 1}, "traceEvents": [\n'


def write(export: Path, out: Path) -> None:
    """Times become µs with three decimals, as Kineto's are; memory stays bounded."""
    with closing(sqlite3.connect(f"file:{export}?mode=ro", uri=True)) as database, out.open("w") as file:
        file.write(_HEAD)
        for number, event in enumerate(_events(database)):
            file.write(f"{',' if number else ''}{event}\n")
        file.write("]}\n")


def _events(database: sqlite3.Connection) -> Iterator[str]:
    names: dict[str, str] = {}
    for start, end, device, context, stream, correlation, name in database.execute(_KERNELS):
        where = f'"device": {device}, "context": {context}, "stream": {stream}, "correlation": {correlation}'
        yield _event("kernel", _quoted(name, names), device, stream, start, end, where)
    for start, end, thread, correlation, name in database.execute(_CALLS):
        owner = thread >> 24 & 0xFFFFFF, thread & 0xFFFFFF
        # Without the suffix of the versioned entry point, like cudaLaunchKernel_v7000.
        label = _quoted(name.partition("_v")[0], names)
        yield _event("cuda_runtime", label, *owner, start, end, f'"correlation": {correlation}')
    for start, end, thread, text in database.execute(_RANGES):
        owner = thread >> 24 & 0xFFFFFF, thread & 0xFFFFFF
        yield _event("user_annotation", _quoted(text, names), *owner, start, end, "")


def _event(kind: str, name: str, process: int, thread: int, start: int, end: int, arguments: str) -> str:
    when = f'"ts": {start / 1000:.3f}, "dur": {(end - start) / 1000:.3f}'
    return (
        f'{{"ph": "X", "cat": "{kind}", "name": {name}, "pid": {process}, "tid": {thread}, {when}, '
        f'"args": {{{arguments}}}}}'
    )


def _quoted(text: str, known: dict[str, str]) -> str:
    """As JSON; there are few names, and each is escaped once."""
    if text not in known:
        known[text] = json.dumps(text)
    return known[text]


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
