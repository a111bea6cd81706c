"""torch.profiler's chrome trace as the tables of an nsys export, so that one analysis reads both.

What kineto writes (libkineto's CuptiActivity and output_json): complete events (`ph` "X") whose `ts` and
`dur` are microseconds with three decimals, counted from `baseTimeNanoseconds`. All nodes of one CUDA graph
launch share its `correlation`, as they do in nsys; "graph node id" is there since torch 2.12.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, UserError
from harness.phases import DOMAIN

Event = Mapping[str, Any]
Row = dict[str, Any]
Tables = dict[str, list[Row]]

SCHEMA_VERSION = "3.20.3"  # of nsys 2025.3, whose names the tables and columns have

# Values of nsys's ENUM_ tables.
_PUSH_POP_RANGE, _DOMAIN_CREATE = 59, 75
_EVENT_CLASS = {"cuda_runtime": 0, "cuda_driver": 1}
_COPY_KIND = {"HtoD": 1, "DtoH": 2, "HtoA": 3, "AtoH": 4, "AtoA": 5, "AtoD": 6, "DtoA": 7, "DtoD": 8}
_COPY_KIND |= {"HtoH": 9, "PtoP": 10}
_MEMORY_KIND = {"Pageable": 0, "Pinned": 1, "Device": 2, "Array": 3, "Managed": 4, "Device Static": 5}
_MEMORY_KIND |= {"Managed Static": 6, "Unknown": 7}

_VM = 1 << 48  # nsys packs machine, process and thread into one number: 16, 24 and 24 bits
_DOMAIN_ID = 1  # 0 is NVTX's default domain


def read_chrome_trace(path: Path) -> dict[str, Any]:
    """The parsed file, times kept exact. UserError (TRACE) if it isn't whole."""
    try:
        trace = json.loads(path.read_text(errors="replace"), parse_float=Decimal)
        if isinstance(trace["traceEvents"], list):
            return trace
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"torch.profiler's trace can't be read: {path}", "run it again", ExitCode.TRACE)


def convert(trace: Mapping[str, Any], torch_version: str) -> Tables:
    """Tables by their nsys names, without those that would be empty. Times: ns from the first event."""
    return _Conversion(trace).tables(torch_version)


def write_sqlite(tables: Tables, path: Path) -> Path:
    """Write `tables` to a new SQLite file."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        for name, rows in tables.items():
            columns = ", ".join(f'"{column}" {_sql_type(rows, column)}' for column in rows[0])
            database.execute(f"CREATE TABLE {name} ({columns})")
            values = ", ".join(f":{column}" for column in rows[0])
            database.executemany(f"INSERT INTO {name} VALUES ({values})", rows)
    return path


class _Conversion:
    def __init__(self, trace: Mapping[str, Any]) -> None:
        self._trace = trace
        self._strings: dict[str, int] = {}
        self._events = [event for event in trace["traceEvents"] if event.get("ph") == "X" and "cat" in event]
        self._origin_ns = min((_ns(event["ts"]) for event in self._events), default=0)
        hosts = (
            event["pid"]
            for event in self._events
            if event["cat"] in ("cpu_op", "user_annotation", *_EVENT_CLASS)
        )
        self._pid = next((pid for pid in hosts if isinstance(pid, int)), 0)

    def tables(self, torch_version: str) -> Tables:
        tables = {
            "CUPTI_ACTIVITY_KIND_KERNEL": self._rows(self._kernel, "kernel"),
            "CUPTI_ACTIVITY_KIND_MEMCPY": self._rows(self._memcpy, "gpu_memcpy"),
            "CUPTI_ACTIVITY_KIND_MEMSET": self._rows(self._memset, "gpu_memset"),
            "CUPTI_ACTIVITY_KIND_RUNTIME": self._rows(self._call, *_EVENT_CLASS),
            "NVTX_EVENTS": self._ranges(),
            "TARGET_INFO_GPU": [_gpu(device) for device in self._trace.get("deviceProperties", [])],
            "TARGET_INFO_SYSTEM_ENV": self._system(),
            "TARGET_INFO_SESSION_START_TIME": [self._session_start()],
            "PROCESSES": [{"globalPid": _global_pid(self._pid), "pid": self._pid, "name": "python"}],
            "META_DATA_EXPORT": _metadata(
                EXPORT_PRODUCT_NAME=f"kineto (torch.profiler of torch {torch_version})",
                EXPORT_PRODUCT_VERSION=f"kineto-{torch_version}",
                EXPORT_SCHEMA_VERSION=SCHEMA_VERSION,
            ),
            "META_DATA_CAPTURE": _metadata(CAPTURE_EVENT_TYPE="Cuda", CUDA_GRAPH_TRACE="Node"),
        }
        tables["StringIds"] = [{"id": number, "value": value} for value, number in self._strings.items()]
        return {name: rows for name, rows in tables.items() if rows}

    def _rows(self, row: Callable[[Event], Row], *categories: str) -> list[Row]:
        return [row(event) for event in self._events if event["cat"] in categories]

    def _span(self, event: Event) -> Row:
        start = _ns(event["ts"]) - self._origin_ns
        return {"start": start, "end": start + _ns(event.get("dur", 0))}

    def _work(self, event: Event) -> Row:
        """What all work on a device has. Copies between devices say "inDevice" for the one that copies."""
        args = event["args"]
        return self._span(event) | {
            "deviceId": args.get("device", args.get("inDevice", 0)),
            "contextId": args.get("context", args.get("inContext", 0)),
            "streamId": args.get("stream", 0),
            "correlationId": args.get("correlation"),
            "globalPid": _global_pid(self._pid),
            "graphNodeId": args.get("graph node id") or None,
        }

    def _kernel(self, event: Event) -> Row:
        args, name = event["args"], event["name"]
        grid, block = args.get("grid", [None] * 3), args.get("block", [None] * 3)
        return (
            self._work(event)
            | {"demangledName": self._string(name), "shortName": self._string(short_name(name))}
            | {"registersPerThread": args.get("registers per thread")}
            | dict(zip(("gridX", "gridY", "gridZ"), grid, strict=True))
            | dict(zip(("blockX", "blockY", "blockZ"), block, strict=True))
        )

    def _memcpy(self, event: Event) -> Row:
        """The kinds are in the name: "Memcpy HtoD (Pageable -> Device)"."""
        words = re.fullmatch(r"Memcpy (\w+) \((.+) -> (.+)\)", event["name"])
        kind, source, destination = words.groups() if words else ("", "", "")
        return self._work(event) | {
            "bytes": event["args"].get("bytes"),
            "copyKind": _COPY_KIND.get(kind, 0),
            "srcKind": _MEMORY_KIND.get(source, 7),
            "dstKind": _MEMORY_KIND.get(destination, 7),
        }

    def _memset(self, event: Event) -> Row:
        words = re.fullmatch(r"Memset \((.+)\)", event["name"])
        kind = _MEMORY_KIND.get(words[1], 7) if words else 7
        return self._work(event) | {"bytes": event["args"].get("bytes"), "memKind": kind}

    def _call(self, event: Event) -> Row:
        return self._span(event) | {
            "eventClass": _EVENT_CLASS[event["cat"]],
            "globalTid": self._global_tid(event),
            "correlationId": event.get("args", {}).get("correlation"),
            "nameId": self._string(event["name"]),
        }

    def _ranges(self) -> list[Row]:
        """record_function("harness:encode") is the range `encode` of the domain `harness`."""
        ranges = self._rows(self._range, "user_annotation")
        threads = {row["globalTid"] for row in ranges if row["domainId"] == _DOMAIN_ID}
        domain = {"start": 0, "end": None, "eventType": _DOMAIN_CREATE, "text": DOMAIN, "textId": None}
        return [
            {**domain, "globalTid": thread, "domainId": _DOMAIN_ID} for thread in sorted(threads)[:1]
        ] + ranges

    def _range(self, event: Event) -> Row:
        ours = event["name"].startswith(f"{DOMAIN}:")
        return self._span(event) | {
            "eventType": _PUSH_POP_RANGE,
            "text": None,
            "textId": self._string(event["name"].removeprefix(f"{DOMAIN}:")),
            "globalTid": self._global_tid(event),
            "domainId": _DOMAIN_ID if ours else 0,
        }

    def _system(self) -> list[Row]:
        known = {"Hostname": "host_name", "CudaDriverVersion": "cuda_driver_version"}
        return _metadata(**{name: str(self._trace[key]) for name, key in known.items() if key in self._trace})

    def _session_start(self) -> Row:
        epoch_ns = self._trace.get("baseTimeNanoseconds", 0) + self._origin_ns
        utc = datetime.fromtimestamp(epoch_ns // 10**9, UTC)
        return {"utcEpochNs": epoch_ns, "utcTime": utc.strftime("%Y-%m-%dT%H:%M:%S")}

    def _global_tid(self, event: Event) -> int:
        return _global_pid(event["pid"]) | event["tid"] & 0xFFFFFF

    def _string(self, value: str) -> int:
        return self._strings.setdefault(value, len(self._strings))


def short_name(demangled: str) -> str:
    """`gemm` from "void cutlass::(anonymous namespace)::gemm<float>(float*)"."""
    plain = demangled.replace("(anonymous namespace)::", "")
    words = re.split(r"[<(]", plain, maxsplit=1)[0].split("::")[-1].split()
    return words[-1] if words else demangled


def _ns(microseconds: Decimal | int) -> int:
    return round(microseconds * 1000)


def _global_pid(pid: int) -> int:
    return _VM | (pid & 0xFFFFFF) << 24


def _gpu(device: Mapping[str, Any]) -> Row:
    return {
        "vmId": _VM,
        "id": device["id"],
        "name": device.get("name"),
        "totalMemory": device.get("totalGlobalMem"),
        "memoryBandwidth": None,  # kineto doesn't know it
        "smCount": device.get("numSms"),
        "computeMajor": device.get("computeMajor"),
        "computeMinor": device.get("computeMinor"),
    }


def _metadata(**values: str) -> list[Row]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _sql_type(rows: list[Row], column: str) -> str:
    return "TEXT" if any(isinstance(row[column], str) for row in rows) else "INTEGER"
