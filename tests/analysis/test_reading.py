"""Exports of any version read the same, and reading never changes them."""

from __future__ import annotations

import gzip
import lzma
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from synthetic_export import Export, global_tid

from analysis import Trace, TraceError, account, diagnose

Recorded = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "version", "kernels"),
    [
        ("h200_eager_2025.3", "2025.3", True),
        ("h200_eager_2023.4", "2023.4", True),
        ("h200_no_kernels_2022.4", "2022.4", False),
        ("cpu_2023.4", "2023.4", False),
        ("cpu_2022.4", "2022.4", False),
    ],
)
def test_real_exports_of_three_versions(recorded: Recorded, name: str, version: str, kernels: bool) -> None:
    with Trace.open(recorded(name)) as trace:
        assert trace.info.product_version.startswith(version)
        assert bool((trace.work["kind"] == "kernel").any()) is kernels
        ours = trace.ranges[trace.ranges["domain"] == "harness"]
        assert {"iter", "encode", "prefill", "decode.step"} <= set(ours["name"])
        if name.startswith("h200"):
            assert trace.info.gpus[0].name == "NVIDIA H200"
            assert trace.info.gpus[0].memory_bandwidth_bps == 4_814_304_000_000


def test_payloads_and_nesting_of_a_real_export(recorded: Recorded) -> None:
    with Trace.open(recorded("cpu_2022.4")) as trace:
        steps = trace.ranges[trace.ranges["name"] == "decode.step"]
        assert steps["payload"].tolist() == [0, 1, 2, 3, 4] * 2
        assert set(steps["depth"]) == {2}  # iter, decode, decode.step


def test_a_trace_without_gpu_work_has_phases_with_host_time(recorded: Recorded) -> None:
    with Trace.open(recorded("cpu_2022.4")) as trace:
        acc = account(trace)
    assert acc.devices.empty and acc.gaps.empty and acc.kernels.empty
    assert (acc.phases["wall_ns"] > 0).all()
    assert "no GPU work" in acc.warnings[0]


def test_an_nsys_too_old_for_its_cuda_is_named_and_nothing_is_counted_as_idle(recorded: Recorded) -> None:
    with Trace.open(recorded("h200_no_kernels")) as trace:
        acc = account(trace)
    assert acc.devices.empty
    assert "nsys 2022.4" in acc.warnings[0] and "too old for CUDA 13.0" in acc.warnings[0]


def test_an_nvtx_too_new_for_its_nsys_is_named(recorded: Recorded) -> None:
    with Trace.open(recorded("cpu_new_nvtx")) as trace:
        assert any("nvtx library is too new" in warning for warning in account(trace).warnings)


def test_plain_and_registered_names_unclosed_ranges_and_both_kinds(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness", 3)
    export.range("plain", 0, 10, domain=3)
    export.range("registered", 2, 5, domain=3, registered=True, payload=42)
    export.range("unclosed", 20, None, domain=0)
    export.range("start/end", 22, 30, kind=60, domain=0)
    export.kernel(40, 90, 1)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        ranges = trace.ranges.set_index("name")
    assert ranges["end_ns"].to_dict() == {"plain": 10, "registered": 5, "unclosed": 90, "start/end": 30}
    assert (
        ranges["domain"].to_dict()["registered"] == "harness" and ranges["domain"].to_dict()["unclosed"] == ""
    )
    assert ranges.loc["registered", "payload"] == 42
    assert ranges["depth"].to_dict() == {"plain": 0, "registered": 1, "unclosed": 0, "start/end": 1}


def test_negative_process_ids_decode(tmp_path: Path) -> None:
    export = Export()
    export.kernel(0, 10, 1, pid=4711, vm=0xFFFF)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        process = int(trace.work["process"].iloc[0])
    assert process == global_tid(4711, vm=0xFFFF) < 0


@pytest.mark.parametrize("suffix", [".xz", ".gz", ""])
def test_packed_exports_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    export = Export()
    export.kernel(0, 10, 1)
    plain = export.write(tmp_path / "t.sqlite")
    packed = tmp_path / f"t.sqlite{suffix}"
    packed.write_bytes({".xz": lzma.compress, ".gz": gzip.compress, "": bytes}[suffix](plain.read_bytes()))
    with Trace.open(packed) as trace:
        assert len(trace.work) == 1


@pytest.mark.parametrize("suffix", [".xz", ".gz"])
@pytest.mark.parametrize("kept", [0.5, 1.0], ids=["cut", "damaged"])
def test_damaged_archives_are_trace_errors(tmp_path: Path, suffix: str, kept: float) -> None:
    export = Export()
    for number in range(100):
        export.kernel(20 * number, 20 * number + 10, number)
    content = export.write(tmp_path / "t.sqlite").read_bytes()
    packed = bytearray((lzma if suffix == ".xz" else gzip).compress(content))
    middle = len(packed) // 2
    packed[middle : middle + 20] = b"\xff" * 20
    path = tmp_path / f"t.sqlite{suffix}"
    path.write_bytes(packed[: int(kept * len(packed))])
    with pytest.raises(TraceError, match="can't be unpacked"):
        Trace.open(path)


def test_reading_changes_nothing_on_disk(tmp_path: Path) -> None:
    export = Export()
    export.kernel(0, 10, 1)
    folder = tmp_path / "a folder? #1 100%"  # must survive the way into SQLite's URI
    folder.mkdir()
    path = export.write(folder / "t.sqlite")
    before = path.read_bytes(), path.stat().st_mtime_ns
    path.chmod(0o400)
    with Trace.open(path) as trace:
        account(trace)
        assert [file.name for file in folder.iterdir()] == ["t.sqlite"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_damage_found_while_reading_is_a_trace_error(recorded: Recorded, tmp_path: Path) -> None:
    data = bytearray(lzma.decompress(recorded("h200_graph").read_bytes()))
    data[4096:] = b"\xa5" * (len(data) - 4096)  # the header and the list of tables survive
    path = tmp_path / "t.sqlite"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=r"t\.sqlite can't be read"), Trace.open(path) as trace:
        account(trace)


KERNELS, CALLS = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME"


def changed(packed: Path, path: Path, *statements: str) -> Path:
    """A plain copy of a bundled export after these SQL statements."""
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


@pytest.mark.parametrize(
    "table, damage, where, told",
    [
        (KERNELS, 'start = "end", "end" = start', "rowid % 10 = 0", "201 of 2,018 kernels .*201 that end"),
        (KERNELS, '"end" = 9000000000000000000', "rowid = 7", "1 of 2,018 kernels .*1 that last longer"),
        (KERNELS, "start = -9000000000000000000", "rowid = 7", "1 of 2,018 kernels .*1 that last longer"),
        (KERNELS, '"end" = "end" + 120000000000', "rowid = 7", "1 of 2,018 kernels .*1 that last longer"),
        (KERNELS, "start = NULL", "rowid = 7", "1 of 2,018 kernels .*1 without a start or an end"),
        (CALLS, '"end" = NULL', "rowid IN (7, 8)", "2 of 4,549 CUDA calls .*2 without a start or an end"),
    ],
)
def test_rows_whose_times_cannot_be_are_left_out_and_counted(
    table: str, damage: str, where: str, told: str, tmp_path: Path, recorded: Recorded
) -> None:
    """What is left is as if they had never been written."""
    loose = f"CREATE TABLE loose AS SELECT * FROM {table}"  # nsys's own columns are NOT NULL
    swap = loose, f"DROP TABLE {table}", f"ALTER TABLE loose RENAME TO {table}"
    damaged, less = f"UPDATE {table} SET {damage} WHERE {where}", f"DELETE FROM {table} WHERE {where}"
    packed = recorded("h200_eager_2025")
    with (
        Trace.open(changed(packed, tmp_path / "a.sqlite", *swap, damaged)) as trace,
        Trace.open(changed(packed, tmp_path / "b.sqlite", less)) as without,
    ):
        acc, expected = account(trace), account(without)
        pd.testing.assert_frame_equal(trace.work, without.work)
    assert re.search(told, acc.warnings[0]) and len(acc.warnings) == len(expected.warnings) + 1
    pd.testing.assert_frame_equal(acc.devices, expected.devices)


def test_times_that_cannot_be_are_left_out_of_large_tables_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those are read from their pages, of which one may hold nothing else."""
    monkeypatch.setattr("analysis.reading.export.pays", lambda rows: True)
    monkeypatch.setattr("analysis.reading.pages._CHUNK_BYTES", 4096)
    export = Export()
    for number in range(300):
        export.kernel(20 * number + (100 if number < 150 else 0), 20 * number + 10, number)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        assert trace.work["start_ns"].tolist() == list(range(3000, 6000, 20))
        (lost,) = trace.left_out
    assert (lost.rows, lost.count, str(lost)) == (300, 150, "150 that end before they begin")


@pytest.mark.parametrize(("duration_ns", "longest_ns"), [(10**9, 61 * 10**9), (None, 30 * 24 * 3600 * 10**9)])
def test_no_true_row_is_longer_than_the_recording_and_the_doubt_of_its_clocks(
    duration_ns: int | None, longest_ns: int, tmp_path: Path
) -> None:
    """A minute more than the recording says that it lasted; a month where it says nothing."""
    export = Export()
    for number in (0, 1):
        export.kernel(0, longest_ns + number, number)
    path = export.write(tmp_path / "t.sqlite")
    if duration_ns is not None:
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE ANALYSIS_DETAILS (duration INTEGER)")
            database.execute("INSERT INTO ANALYSIS_DETAILS VALUES (?)", (duration_ns,))
            database.commit()
    with Trace.open(path) as trace:
        assert trace.work["end_ns"].tolist() == [longest_ns]
        (lost,) = trace.left_out
    assert str(lost) == "1 that last longer than the recording"


@pytest.mark.parametrize("table", [KERNELS, CALLS, "NVTX_EVENTS"])
@pytest.mark.parametrize("column", ["start", "end"])
def test_a_table_without_times_is_a_trace_error(
    table: str, column: str, tmp_path: Path, recorded: Recorded
) -> None:
    rename = f'ALTER TABLE {table} RENAME COLUMN "{column}" TO something'
    path = changed(recorded("h200_eager_2025"), tmp_path / "t.sqlite", rename)
    told = f"{table} has no column {column}"
    with pytest.raises(TraceError, match=told) as found, Trace.open(path) as trace:
        account(trace)
    assert "nsys export" in found.value.hint


def test_a_trace_none_of_whose_kernels_has_a_time_is_a_trace_error(
    tmp_path: Path, recorded: Recorded
) -> None:
    swap = f'UPDATE {KERNELS} SET start = "end", "end" = start'
    path = changed(recorded("h200_eager_2025"), tmp_path / "t.sqlite", swap)
    with Trace.open(path) as trace, pytest.raises(TraceError, match="2,018 that end before they begin"):
        diagnose.require_gpu_work(trace)


def test_work_outside_the_iterations_is_not_called_no_work(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 2_000_000, 5_000_000)
    export.kernel(100_000, 900_000, 1)
    with Trace.open(export.write(tmp_path / "t.sqlite")) as trace:
        (told, *_) = account(trace).warnings
    assert told.startswith("1 piece of GPU work, none within the harness's iter ranges (2.0 to 5.0 ms)")
