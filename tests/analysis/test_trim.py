"""A trimmed export says the same about what is left in it, and nothing about where it was made."""

from __future__ import annotations

import lzma
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from synthetic_export import Export

from analysis import Trace, account
from analysis.accounting.host import match_launches
from analysis.trim import trim


def unpacked(packed: Path, folder: Path) -> Path:
    plain = folder / "plain.sqlite"
    plain.write_bytes(lzma.decompress(packed.read_bytes()))
    return plain


def test_what_is_left_reads_the_same(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    whole = unpacked(recorded("h200_eager_2025.3"), tmp_path)
    trim(whole, tmp_path / "cut.sqlite.xz", until="decode.step:1")
    with Trace.open(whole) as before, Trace.open(tmp_path / "cut.sqlite.xz") as after:
        steps = after.ranges[after.ranges["name"] == "decode.step"]
        assert len(steps) == 1
        calls = np.append(before.api["start_ns"].to_numpy(), 0)[match_launches(before.work, before.api)]
        kept = before.work[calls < steps["end_ns"].iloc[0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, after.work, check_categorical=False)
        phases = {"encode", "prefill"}
        for name in phases:
            assert account(before).phase(name).to_dict() == account(after).phase(name).to_dict()


def test_kept_steps_keep_the_kernels_that_the_host_launched_ahead(
    recorded: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = unpacked(recorded("h200_graph"), tmp_path)
    trim(whole, tmp_path / "cut.sqlite.xz", until="decode.step:5")
    with Trace.open(tmp_path / "cut.sqlite.xz") as cut:
        acc = account(cut)
    step = acc.phase("decode.step")
    assert step["count"] == 5 and step["kernels"] == 5 * 16
    assert acc.window_ns[1] == cut.work["end_ns"].max()


def test_open_ranges_are_cut_where_the_kept_work_ends(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    export.range("iter", 0, 900)
    for n in range(3):
        export.range("decode.step", 10 + 10 * n, 20 + 10 * n)
        export.call(12 + 10 * n, 14 + 10 * n, n)
        export.kernel(100 + 50 * n, 140 + 50 * n, n)
    export.memcpy(25, 26, 99)  # without a call: by its own start
    export.memcpy(101, 102, 98)
    export.write(tmp_path / "whole.sqlite")
    trim(tmp_path / "whole.sqlite", tmp_path / "cut.sqlite.xz", until="decode.step:2")
    with Trace.open(tmp_path / "cut.sqlite.xz") as cut:
        assert cut.work["start_ns"].tolist() == [25, 100, 150]
        assert cut.api["start_ns"].tolist() == [12, 22]
        ends = cut.ranges.set_index("start_ns")["end_ns"].to_dict()
    assert ends == {0: 190, 10: 20, 20: 30}


def test_a_trace_with_fewer_ranges_is_kept_whole(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    whole = unpacked(recorded("h200_graph"), tmp_path)
    trim(whole, tmp_path / "cut.sqlite.xz", until="decode.step:21")
    with Trace.open(whole) as before, Trace.open(tmp_path / "cut.sqlite.xz") as after:
        pd.testing.assert_frame_equal(before.work, after.work, check_categorical=False)
        pd.testing.assert_frame_equal(before.ranges, after.ranges, check_categorical=False)


def test_the_recording_machine_is_not_in_it(tmp_path: Path) -> None:
    export = tmp_path / "export.sqlite"
    with sqlite3.connect(export) as database:
        database.executescript(
            """
            CREATE TABLE StringIds (id INTEGER, value TEXT);
            INSERT INTO StringIds VALUES (1, 'kernel'), (2, '/home/somebody/secret');
            CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, "end" INTEGER, shortName INTEGER);
            INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (1, 2, 1);
            CREATE TABLE PROCESSES (name TEXT);
            INSERT INTO PROCESSES VALUES ('/home/somebody/secret');
            CREATE TABLE TARGET_INFO_SYSTEM_ENV (name TEXT, value TEXT);
            INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES ('Hostname', 'secret'), ('CpuCores', '2');
            CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT);
            INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_PATH', '/secret'), ('EXPORT_VERSION', '1');
            """
        )
    database.close()
    trim(export, tmp_path / "out.sqlite.xz")
    left = lzma.decompress((tmp_path / "out.sqlite.xz").read_bytes())
    assert b"secret" not in left
    assert b"kernel" in left and b"CpuCores" in left and b"EXPORT_VERSION" in left
    assert b"secret" in export.read_bytes(), "the original is left as it was"


def test_a_range_that_is_not_there_is_one_message(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    whole = unpacked(recorded("h200_graph"), tmp_path)
    line = [
        sys.executable,
        "-m",
        "analysis.trim",
        str(whole),
        str(tmp_path / "o.sqlite.xz"),
        "--until",
        "no:1",
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode != 0
    assert "no ranges named no" in done.stderr and "Traceback" not in done.stderr


def test_of_sampled_metrics_only_what_is_read_while_the_kept_work_ran(tmp_path: Path) -> None:
    export = Export()
    export.domain("harness")
    for n in range(3):
        at = 10_000_000 * n
        export.range("decode.step", at, at + 1000)
        export.call(at, at + 10, n)
        export.kernel(at + 100, at + 900, n)
    whole = export.write(tmp_path / "whole.sqlite")
    with closing(sqlite3.connect(whole)) as database, database:
        database.executescript(
            """
            CREATE TABLE TARGET_INFO_GPU_METRICS (typeId INTEGER, metricId INTEGER, metricName TEXT);
            INSERT INTO TARGET_INFO_GPU_METRICS VALUES
                (1, 5, 'DRAM Read Bandwidth [Throughput %]'), (1, 6, 'PCIe RX Throughput [Throughput %]');
            CREATE TABLE GPU_METRICS (timestamp INTEGER, typeId INTEGER, metricId INTEGER, value INTEGER);
            CREATE TABLE GENERIC_EVENTS (timestamp INTEGER, data TEXT);
            INSERT INTO GENERIC_EVENTS VALUES (1, '{}');
            """
        )
        times = range(-2_000_000, 30_000_000, 500_000)
        rows = [(time, 1, metric, 7) for time in times for metric in (5, 6)]
        database.executemany("INSERT INTO GPU_METRICS VALUES (?, ?, ?, ?)", rows)
    trim(whole, tmp_path / "cut.sqlite.xz", until="decode.step:2")
    with closing(sqlite3.connect(unpacked(tmp_path / "cut.sqlite.xz", tmp_path))) as cut:
        (first, last, count) = cut.execute(
            "SELECT min(timestamp), max(timestamp), count(*) FROM GPU_METRICS"
        ).fetchone()
        assert cut.execute("SELECT DISTINCT metricId FROM GPU_METRICS").fetchall() == [(5,)]
        assert cut.execute("SELECT metricId FROM TARGET_INFO_GPU_METRICS").fetchall() == [(5,)]
        assert cut.execute("SELECT count(*) FROM GENERIC_EVENTS").fetchone() == (0,)
    assert (first, last) == (-500_000, 11_000_000), "a millisecond around the first and last kept kernel"
    assert count == 24
