"""What differs between nsys exports, behind one query per table.

Read from real exports of 2022.4, 2023.4 and 2025.3: tables that hold nothing are absent, columns come and
go, metadata changed its name, and a CUDA graph traced as a whole has a table of its own.
"""

from __future__ import annotations

from collections.abc import Callable

METADATA_TABLES = ("META_DATA_EXPORT", "EXPORT_META_DATA")  # since 2023, before

WORK_TABLES = {
    "kernel": "CUPTI_ACTIVITY_KIND_KERNEL",
    "memcpy": "CUPTI_ACTIVITY_KIND_MEMCPY",
    "memset": "CUPTI_ACTIVITY_KIND_MEMSET",
    "graph": "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",  # --cuda-graph-trace=graph: no rows for the kernels inside
}
API_TABLE = "CUPTI_ACTIVITY_KIND_RUNTIME"
# globalTid packs VM, process and thread; globalPid is the same with thread 0.
THREAD_BITS = PID_BITS = 0xFFFFFF
PID_SHIFT = 24
GRAPH_ID_SHIFT = 32  # of graphNodeId: above it the id of the instantiated graph, below that of the node
EVENT_TABLES = (*WORK_TABLES.values(), API_TABLE, "NVTX_EVENTS")

# ENUM_NSYS_EVENT_TYPE: push/pop and start/end ranges, of NVTX and of imported text files (nvtxt).
NVTX_RANGES = (59, 60, 70, 71)
_NVTX_DOMAIN = 75

_COPY_KINDS = {1: "HtoD", 2: "DtoH", 8: "DtoD", 9: "HtoH", 10: "PtoP", 11: "UVM HtoD", 12: "UVM DtoH"}

WORK_LABELS: dict[str, Callable[[int], str]] = {
    "memcpy": lambda copy_kind: f"[memcpy {_COPY_KINDS.get(copy_kind, 'other')}]",
    "memset": lambda _: "[memset]",
    "graph": lambda graph_id: f"[CUDA graph {graph_id}]",
}

# Columns of every table of work: owner, place, launch, time; absent ones are read as missing.
OWNER = ("globalPid", "deviceId", "contextId", "streamId")
WORK_COLUMNS = (*OWNER, "correlationId", "start", "end", "graphNodeId")

# What a piece of work is called after: the first of these that a row has.
NAMES = {
    "kernel": ("demangledName", "shortName", "mangledName"),
    "memcpy": ("copyKind",),
    "memset": (),
    "graph": ("graphId", "graphExecId"),
}
SHAPE = ("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ")  # of a kernel's launch

API_COLUMNS = ("globalTid", "correlationId", "start", "end", "nameId")

SYNC_TABLE = "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION"
SYNC_COLUMNS = ("globalPid", "contextId", "streamId", "correlationId", "start")

# The profiler's own time: before 2025.5 in the first table, since then CUPTI's part is in the second.
OVERHEAD_TABLES = ("PROFILER_OVERHEAD", "CUPTI_ACTIVITY_KIND_OVERHEAD")
OVERHEAD_COLUMNS = ("globalTid", "globalPid", "start", "end")


def ranges_query(columns: set[str]) -> str:
    """SQL for thread, domain id, name, payload, start, end."""
    payload = _first_of(columns, "int64Value", "uint64Value", "int32Value", "uint32Value", default="NULL")
    return f"""
        SELECT globalTid, {_first_of(columns, "domainId", default="0")}, {_text(columns)}, {payload},
               start, "end"
        FROM NVTX_EVENTS WHERE eventType IN {NVTX_RANGES} AND start IS NOT NULL"""


def domains_query(columns: set[str]) -> str:
    """SQL for thread, domain id, name."""
    return f"SELECT globalTid, domainId, {_text(columns)} FROM NVTX_EVENTS WHERE eventType = {_NVTX_DOMAIN}"


def _text(columns: set[str]) -> str:
    """Plain strings are in `text`, registered ones in StringIds: both occur in one file."""
    registered = "(SELECT value FROM StringIds WHERE id = textId)" if "textId" in columns else "NULL"
    return f"coalesce(text, {registered}, '')"


def _first_of(columns: set[str], *names: str, default: str = "-1") -> str:
    """SQL for the first of these columns that this export has and that isn't NULL."""
    present = [name for name in names if name in columns]
    return f"coalesce({', '.join([*present, default])})" if present else default
