"""An nsys export as tables of integers and names, whatever version wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd

from analysis.engine.collection import postponed
from analysis.engine.intervals import Ints, nesting_levels
from analysis.engine.parallel import at_once
from analysis.reading import schema
from analysis.reading.export import Export
from analysis.reading.pages import MISSING
from analysis.reading.tables import Rows, read_api, read_work
from analysis.reading.times import LeftOut


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
    globalTid: correlation ids repeat across processes, so (process, correlation) names a launch. `export` is
    the open file itself, for tables that only a few need.
    """

    def __init__(self, export: Export) -> None:
        self.export = export

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open a `.sqlite` export, or one packed as `.xz` or `.gz`. Raises TraceError."""
        return cls(Export(Path(path)))

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.export.close()

    @postponed()
    def read(self) -> None:
        """Read what an account needs, several tables at a time."""
        for name in ("ranges", "waits", "overhead", "info"):
            getattr(self, name)
        at_once(lambda: self.work, lambda: self.api)

    @property
    def path(self) -> Path:
        return self.export.path

    @property
    def whole_graphs(self) -> bool:
        """Whether CUDA graphs were traced as one piece each, without the kernels inside."""
        return self.export.rows_at_most(schema.WORK_TABLES["graph"]) > 0

    @property
    def work(self) -> pd.DataFrame:
        """What ran on the devices, ordered by device and start.

        Columns: process, device (the GPU, whatever the process calls it), context, stream, correlation (-1:
        none), kind (kernel, memcpy, memset, graph), name (demangled), shape ("(grid)x(block)" of kernels),
        start_ns, end_ns, graph_node (NA outside graphs).
        """
        return self._work.table

    @property
    def api(self) -> pd.DataFrame:
        """CUDA calls of the host, ordered by thread and start.

        Columns: process, thread, correlation (-1: none), name, start_ns, end_ns.
        """
        return self._api.table

    @property
    def left_out(self) -> list[LeftOut]:
        """The rows of work and calls that are in neither table because their times can't be true."""
        return [one for one in [*self._work.left_out, *self._api.left_out] if one.count]

    @cached_property
    def waits(self) -> pd.DataFrame:
        """Synchronisations. Columns: process, context, stream, correlation (of the call), start_ns."""
        rows = self._small(schema.SYNC_TABLE, schema.SYNC_COLUMNS)
        table = pd.DataFrame(rows, columns=["process", "context", "stream", "correlation", "start_ns"])
        return table.astype(
            {"correlation": np.int32}
        )  # the type of the others, or to compare would copy them

    @cached_property
    def overhead(self) -> pd.DataFrame:
        """The profiler's own work. Columns: thread, process (-1 where it isn't said), start_ns, end_ns."""
        tables = [self._small(table, schema.OVERHEAD_COLUMNS) for table in schema.OVERHEAD_TABLES]
        rows = pd.DataFrame(np.concatenate(tables), columns=["thread", "process", "start_ns", "end_ns"])
        owner = np.where(rows["thread"] != -1, rows["thread"] & ~schema.THREAD_BITS, rows["process"])
        return rows.assign(process=owner)

    @cached_property
    def ranges(self) -> pd.DataFrame:
        """NVTX ranges. Columns: domain ("" is the default one), name, payload (integers only, nullable),
        process, thread (that opened it), start_ns, end_ns, depth (0 is the outermost of its thread).

        A range that was never closed lasts until the last event of the trace.
        """
        self.export.require("NVTX_EVENTS", "start", "end")
        columns = self.export.columns("NVTX_EVENTS")
        rows = self.export.rows(schema.ranges_query(columns)) if columns else []
        frame = pd.DataFrame(rows, columns=["thread", "domain_id", "name", "payload", "start_ns", "end_ns"])
        # Ranges that begin and end together nest by name: the order of the file must not decide.
        frame = frame.sort_values(
            ["thread", "start_ns", "domain_id", "name"], kind="stable", ignore_index=True
        )
        thread = frame["thread"].to_numpy(dtype=np.int64)
        process = thread & ~schema.THREAD_BITS
        start = frame["start_ns"].to_numpy(dtype=np.int64)
        closed = frame["end_ns"].astype("Int64")
        if closed.hasnans:
            closed = closed.fillna(self._last_event_ns(start, closed))
        end = closed.to_numpy(dtype=np.int64)
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
        metadata = next((table for table in schema.METADATA_TABLES if table in self.export.tables), "")
        exported = dict(self.export.select(metadata, "name", "value")) if metadata else {}
        system = dict(self.export.select("TARGET_INFO_SYSTEM_ENV", "name", "value"))
        started = self.export.select("TARGET_INFO_SESSION_START_TIME", "utcTime")
        gpus = self.export.select("TARGET_INFO_GPU", "id", "name", "memoryBandwidth", "smCount")
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
        return len(self.export.select("NVTX_EVENTS", "eventType"))

    @cached_property
    def _work(self) -> Rows:
        return read_work(self.export, self._string, self._gpu_of)

    @cached_property
    def _api(self) -> Rows:
        return read_api(self.export, self._string)

    def _small(self, table: str, columns: Sequence[str]) -> Ints:
        """A table that fits into memory several times over: shape [rows, columns], -1 for what is missing."""
        none = np.empty((len(columns), 0), dtype=np.int64)
        rows = np.concatenate([none, *self.export.integers(table, columns, np.copy)], axis=1).T
        return np.where(rows == MISSING, -1, rows)

    @cached_property
    def _strings(self) -> dict[int, str]:
        return dict(self.export.select("StringIds", "id", "value"))

    def _string(self, code: int) -> str:
        return self._strings.get(code, "")

    @cached_property
    def _gpus(self) -> dict[tuple[int, int], int]:
        """GPU by process id and CUDA device id: a process may see its own selection of the GPUs."""
        rows = self.export.select("TARGET_INFO_CUDA_DEVICE", "pid", "cudaId", "gpuId")
        return {(pid, device): gpu for pid, device, gpu in rows if gpu is not None}

    def _gpu_of(self, process: int, device: int) -> int:
        return self._gpus.get((process >> schema.PID_SHIFT & schema.PID_BITS, device), device)

    def _domains(self, columns: set[str]) -> dict[tuple[int, int], str]:
        """Domain ids are numbered per process."""
        rows = self.export.rows(schema.domains_query(columns)) if "domainId" in columns else []
        return {(thread & ~schema.THREAD_BITS, domain): name for thread, domain, name in rows}

    def _last_event_ns(self, range_start: Ints, range_end: pd.Series) -> int:
        ends = [
            self.work["end_ns"].max(),
            self.api["end_ns"].max(),
            range_end.max(),
            range_start.max(initial=0),
        ]
        return max(int(end) for end in ends if pd.notna(end))


def _cuda_version(packed: str) -> str:
    """ "13.0" from the driver's 13000."""
    return f"{int(packed) // 1000}.{int(packed) % 1000 // 10}" if packed.isdigit() else ""
