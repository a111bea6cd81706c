"""An nsys export as tables of integers and names, whatever version wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import schema
from analysis.export import Export
from analysis.intervals import nesting_levels


@dataclass(frozen=True)
class Gpu:
    """A device of the recording machine, as its driver describes it."""

    id: int
    name: str
    memory_bandwidth_bps: int  # peak, bytes per second
    sms: int


@dataclass(frozen=True)
class TraceInfo:
    """Who recorded the trace, and on what; empty where the export doesn't say."""

    product_version: str
    schema: str
    host: str
    recorded_utc: str
    cuda_driver: str  # the newest CUDA that the driver supports, like "13.0"
    gpus: tuple[Gpu, ...]


class Trace:
    """An nsys export, opened read-only; each table is read on first use.

    Times are int64 nanoseconds on the trace's own clock. `process` and `thread` are nsys's globalPid and
    globalTid: correlation ids repeat across processes, so (process, correlation) names a launch.
    """

    def __init__(self, export: Export) -> None:
        self._export = export

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open a `.sqlite` export, or one packed as `.xz` or `.gz`. Raises TraceError."""
        return cls(Export(Path(path)))

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._export.close()

    @property
    def path(self) -> Path:
        return self._export.path

    @cached_property
    def work(self) -> pd.DataFrame:
        """What ran on the devices, in an order that doesn't depend on the file's.

        Columns: process, device, context, stream, correlation, kind (kernel, memcpy, memset, graph), name
        (demangled), start_ns, end_ns, graph_node (NA outside graphs).
        """
        parts = [self._work_of_kind(kind) for kind in schema.WORK_TABLES]
        work = pd.concat(parts, ignore_index=True).astype({"kind": "category", "name": "category"})
        work["end_ns"] = np.maximum(work["start_ns"], work["end_ns"])
        work["graph_node"] = work["graph_node"].astype("Int64").mask(work["graph_node"] < 0)
        order = ["device", "start_ns", "end_ns", "stream", "process", "correlation", "graph_node"]
        return work.sort_values(order, kind="stable", ignore_index=True)

    @cached_property
    def api(self) -> pd.DataFrame:
        """CUDA calls of the host. Columns: process, thread, correlation, name, start_ns, end_ns."""
        has_api = schema.API_TABLE in self._export.tables
        rows = self._export.integers(schema.API_QUERY, 5) if has_api else np.empty((0, 5), dtype=np.int64)
        api = pd.DataFrame(
            {
                "process": rows[:, 0] & ~schema.THREAD_BITS,
                "thread": rows[:, 0],
                "correlation": rows[:, 1],
                "name": _named(rows[:, 4], self._call_name),
                "start_ns": rows[:, 2],
                "end_ns": np.maximum(rows[:, 2], rows[:, 3]),
            }
        )
        return api.sort_values(["process", "correlation", "start_ns"], kind="stable", ignore_index=True)

    @cached_property
    def ranges(self) -> pd.DataFrame:
        """NVTX ranges. Columns: domain ("" is the default one), name, payload (integers only, nullable),
        process, thread (that opened it), start_ns, end_ns, depth (0 is the outermost of its thread).

        A range that was never closed lasts until the last event of the trace.
        """
        columns = self._export.columns("NVTX_EVENTS")
        rows = self._export.rows(schema.ranges_query(columns)) if columns else []
        frame = pd.DataFrame(rows, columns=["thread", "domain_id", "name", "payload", "start_ns", "end_ns"])
        # Ranges that begin and end together nest by name: the order of the file must not decide.
        frame = frame.sort_values(
            ["thread", "start_ns", "domain_id", "name"], kind="stable", ignore_index=True
        )
        thread = frame["thread"].to_numpy(dtype=np.int64)
        process = thread & ~schema.THREAD_BITS
        start = frame["start_ns"].to_numpy(dtype=np.int64)
        closed = frame["end_ns"].astype("Int64")
        end = closed.fillna(self._last_event_ns(start, closed)).to_numpy(dtype=np.int64)
        depth = np.zeros(len(frame), dtype=np.int64)
        for one in np.unique(thread):
            mine = thread == one
            depth[mine] = nesting_levels(start[mine], end[mine])
        domains = self._domains(columns)
        owners = zip(process.tolist(), frame["domain_id"].tolist(), strict=True)
        ranges = pd.DataFrame(
            {
                "domain": pd.Categorical([domains.get(owner, "") for owner in owners]),
                "name": pd.Categorical(frame["name"]),
                "payload": frame["payload"].astype("Int64"),
                "process": process,
                "thread": thread,
                "start_ns": start,
                "end_ns": np.maximum(start, end),
                "depth": depth,
            }
        )
        return ranges.sort_values(["thread", "start_ns", "depth"], kind="stable", ignore_index=True)

    @cached_property
    def info(self) -> TraceInfo:
        metadata = next((table for table in schema.METADATA_TABLES if table in self._export.tables), "")
        exported = dict(self._export.select(metadata, "name", "value")) if metadata else {}
        system = dict(self._export.select("TARGET_INFO_SYSTEM_ENV", "name", "value"))
        started = self._export.select("TARGET_INFO_SESSION_START_TIME", "utcTime")
        gpus = self._export.select("TARGET_INFO_GPU", "id", "name", "memoryBandwidth", "smCount")
        return TraceInfo(
            product_version=str(exported.get("EXPORT_PRODUCT_VERSION", "")),
            schema=str(exported.get("EXPORT_SCHEMA_VERSION", "")),
            host=str(system.get("Hostname") or exported.get("EXPORT_HOST", "")),
            recorded_utc=str(started[0][0]) if started else "",
            cuda_driver=_cuda_version(str(system.get("CudaDriverVersion", ""))),
            gpus=tuple(Gpu(id_, name or "", bps or 0, sms or 0) for id_, name, bps, sms in sorted(gpus)),
        )

    @cached_property
    def nvtx_events(self) -> int:
        """NVTX rows of any kind. Domains without ranges: an nvtx library too new for its nsys."""
        return len(self._export.select("NVTX_EVENTS", "eventType"))

    def _work_of_kind(self, kind: str) -> pd.DataFrame:
        table = schema.WORK_TABLES[kind]
        columns = self._export.columns(table)
        width = len(schema.WORK_COLUMNS) + 1
        rows = np.empty((0, width), dtype=np.int64)
        if columns:
            rows = self._export.integers(schema.work_query(kind, columns), width)
        frame = pd.DataFrame(rows[:, :-1], columns=schema.WORK_COLUMNS)
        frame["kind"] = kind
        label = self._kernel_name if kind == "kernel" else schema.WORK_LABELS[kind]
        frame["name"] = np.asarray(_named(rows[:, -1], label), dtype=object)
        return frame

    @cached_property
    def _strings(self) -> dict[int, str]:
        return dict(self._export.select("StringIds", "id", "value"))

    def _kernel_name(self, code: int) -> str:
        return self._strings.get(code, "(unnamed kernel)")

    def _call_name(self, code: int) -> str:
        """`cudaLaunchKernel_v7000` is the runtime's own spelling of a versioned entry point."""
        return re.sub(r"_v\d+$", "", self._strings.get(code, "(unnamed call)"))

    def _domains(self, columns: set[str]) -> dict[tuple[int, int], str]:
        """Domain ids are numbered per process."""
        rows = self._export.rows(schema.domains_query(columns)) if "domainId" in columns else []
        return {(thread & ~schema.THREAD_BITS, domain): name for thread, domain, name in rows}

    def _last_event_ns(self, range_start: npt.NDArray[np.int64], range_end: pd.Series) -> int:
        ends = [
            self.work["end_ns"].max(),
            self.api["end_ns"].max(),
            range_end.max(),
            range_start.max(initial=0),
        ]
        return max(int(end) for end in ends if pd.notna(end))


def _named(codes: npt.NDArray[np.int64], label: Callable[[int], str]) -> pd.Categorical:
    """Labels for codes, each distinct code looked up once."""
    distinct, position = np.unique(codes, return_inverse=True)
    labels, categories = pd.factorize(np.array([label(int(code)) for code in distinct], dtype=object))
    return pd.Categorical.from_codes(labels[position], pd.Index(categories))


def _cuda_version(packed: str) -> str:
    """ "13.0" from the driver's 13000."""
    return f"{int(packed) // 1000}.{int(packed) % 1000 // 10}" if packed.isdigit() else ""
