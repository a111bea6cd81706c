"""What is no trace that can be analysed: `python -m analysis` says what was found and what to do."""

from __future__ import annotations

import lzma
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from analysis_cli import analysis
from runs_on_disk import write_run
from synthetic_export import Export

Recorded = Callable[[str], Path]


def truncated(folder: Path, recorded: Recorded) -> Path:
    path = folder / "cut.sqlite"
    path.write_bytes(lzma.decompress(recorded("h200_graph").read_bytes())[:-5000])
    return path


def foreign(folder: Path, recorded: Recorded) -> Path:
    path = folder / "shop.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE customers (name TEXT)")
    database.execute("CREATE TABLE orders (id INTEGER)")
    database.commit()
    database.close()
    return path


def named(name: str, content: bytes) -> Callable[[Path, Recorded], Path]:
    def make(folder: Path, recorded: Recorded) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return make


def only_ranges(folder: Path, recorded: Recorded) -> Path:
    export = Export()
    export.range("work", 0, 100)
    return export.write(folder / "host.sqlite")


def work_elsewhere(folder: Path, recorded: Recorded) -> Path:
    export = Export()
    export.domain("harness")
    export.range("iter", 2_000_000, 5_000_000)
    export.kernel(100_000, 900_000, 1)
    export.kernel(900_000, 950_000, 2)
    return export.write(folder / "elsewhere.sqlite")


def two_exports(folder: Path) -> Path:
    for name in ("metrics.sqlite", "trace.sqlite"):
        (folder / name).touch()
    return folder


BAD = {
    "missing file": (lambda folder, _: folder / "nowhere.sqlite", "no such file", "give the .sqlite file"),
    "folder": (lambda folder, _: folder, "is a folder, not a trace", "give the .sqlite file"),
    "folder of traces": (
        lambda folder, _: two_exports(folder), "is a folder, not a trace", "in it: trace.sqlite, metrics"
    ),
    "not SQLite": (named("a.sqlite", b"hello" * 100), "not an SQLite database", "nsys export --type=sqlite"),
    "record of a run": (
        lambda folder, _: write_run(folder / "a" / "1", [1.0]) / "run.json", "part of a run", "run's folder: "
    ),
    "empty": (named("a.sqlite", b""), "empty (0 bytes)", "nsys export --type=sqlite"),
    "truncated": (truncated, "cut.sqlite is truncated", "nsys export --type=sqlite"),
    "header only": (named("a.sqlite", b"SQLite format 3\x00"), "truncated", "nsys export"),
    "foreign": (foreign, "not an nsys export (its tables: customers, orders)", "nsys export"),
    "report": (named("a.nsys-rep", b"x"), "is an nsys report", "nsys export --type=sqlite --output=a.sqlite"),
    "unfinished": (named("a.qdstrm", b"x"), "unfinished", "QdstrmImporter -i a.qdstrm"),
    "bad archive": (named("a.sqlite.xz", b"x" * 99), "can't be unpacked", "complete file"),
    "no GPU work": (only_ranges, "no GPU work (found 1 NVTX ranges, and 0 CUDA calls)", "--trace=cuda,nvtx"),
    "work elsewhere": (
        work_elsewhere, "2 pieces of GPU work, none within the harness's iter ranges", "record the whole"
    ),
    "old nsys": (
        lambda _, recorded: recorded("h200_no_kernels"),
        "nsys 2022.4.2.1 recorded 3 kernel launch calls but not one kernel",
        "newer Nsight Systems",
    ),
    "new nvtx": (
        lambda _, recorded: recorded("cpu_new_nvtx"), "NVTX events but no ranges", "--trace=cuda,nvtx"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_traces_are_6_with_a_message_and_a_way_on(case: str, tmp_path: Path, recorded: Recorded) -> None:
    make, message, hint = BAD[case]
    done = analysis(make(tmp_path, recorded), "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    error, _, rest = done.stderr.partition("\n")
    assert error.startswith("error: ") and message in error
    assert rest.startswith("  try: ") and hint in rest
    assert not (tmp_path / "out").exists()


def test_work_outside_the_iterations_is_not_compared(tmp_path: Path, recorded: Recorded) -> None:
    path = work_elsewhere(tmp_path, recorded)
    done = analysis("compare", path, path, cwd=tmp_path)
    assert done.returncode == 6 and "none within the harness's iter ranges" in done.stderr
