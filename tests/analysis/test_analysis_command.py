"""`python -m analysis`: what it prints, what it writes, and how it exits."""

from __future__ import annotations

import io
import json
import lzma
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from analysis_cli import ROOT, analysis
from memory_trace import traced
from rich.console import Console
from runs_on_disk import write_run, write_trace
from synthetic_export import Export, launches

from analysis.__main__ import main
from analysis.commands import stages
from analysis.commands.stages import Stages
from analysis.reading import source

Recorded = Callable[[str], Path]


def test_tables_and_figures_of_a_real_export(recorded: Recorded, tmp_path: Path) -> None:
    done = analysis(recorded("h200_eager_2023.4"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The GPU idles" in done.stdout and "harness:decode.step" in done.stdout
    files = [Path(line) for line in done.stdout.splitlines() if line.startswith(str(tmp_path))]
    figures = {"gaps.png", "gaps.svg", "timeline.png", "timeline.svg"}
    assert {file.name for file in files} == figures | {"report.html"}
    assert all(file.stat().st_size > 10_000 for file in files)
    assert done.stderr == "", "no bar without a terminal"


def test_memory_traffic_is_drawn_and_gaps_beside_it_are_doubted(tmp_path: Path) -> None:
    trace = traced(tmp_path / "t.sqlite")
    done = analysis(trace, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = {file.stem for file in (tmp_path / "t-analysis").glob("*.png")}
    assert figures == {"gaps", "timeline", "roofline", "dram"}
    assert "take gaps from a trace without them" in " ".join(done.stdout.split())
    assert "take gaps from a trace without them" in (tmp_path / "t-analysis" / "report.html").read_text()


def test_json_has_memory_traffic_or_why_not(recorded: Recorded, tmp_path: Path) -> None:
    found = json.loads(analysis(traced(tmp_path / "t.sqlite"), "--json", cwd=tmp_path).stdout)
    assert found["memory_note"] is None and "GPU metrics" in found["warnings"][-1]
    assert any(kernel["memory"]["dram_gbps"] > 0 for kernel in found["kernels_top"])
    without = json.loads(analysis(recorded("h200_graph"), "--json", cwd=tmp_path).stdout)
    assert "no GPU metrics" in without["memory_note"]
    assert not any("GPU metrics" in warning for warning in without["warnings"])


def test_a_packed_trace_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "t.sqlite.xz"
    packed.write_bytes(lzma.compress(traced(tmp_path / "t.sqlite").read_bytes(), preset=0))
    unpacked: list[Path] = []

    def unpack(path: Path, folder: Path) -> Path:
        unpacked.append(path)
        return original(path, folder)

    original = source._unpack
    monkeypatch.setattr(source, "_unpack", unpack)
    assert main([str(packed), "--json"]) == 0
    assert unpacked == [packed] and json.loads(capsys.readouterr().out)["memory_note"] is None


def test_the_bar_names_the_stage_and_makes_way_for_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PATIENCE_S", 0.0)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, force_interactive=True)
    with Stages(["reading", "figures"], console) as bar:
        bar._timer.join()
        bar.next()
        with bar.hidden():
            at = len(screen.getvalue())
            assert not bar._bar.live.is_started
        assert bar._bar.live.is_started
    drawn = screen.getvalue()
    assert "reading" in drawn[:at] and "figures" in drawn[at:]


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PATIENCE_S", 0.0)
    screen = io.StringIO()
    with Stages(["reading", "figures"], Console(file=screen)) as bar:
        bar.next()
        with bar.hidden():
            pass
    assert screen.getvalue() == ""


def test_tables_only(recorded: Recorded, tmp_path: Path) -> None:
    done = analysis(recorded("h200_graph"), "--no-plots", cwd=tmp_path)
    assert done.returncode == 0 and "between nodes of one CUDA graph" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_run_stands_for_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "scope" / "1", [7.0])
    write_trace(run / "trace.sqlite", 2, 1000, {"told": 1000})
    write_trace(run / "metrics.sqlite", 2, 1000, {"sampled": 1000})
    assert main([str(run), "--json"]) == 0
    said = capsys.readouterr().out
    assert "told" in said and "sampled" not in said
    assert main(["export", str(run), "--perfetto"]) == 0
    assert (tmp_path / "scope-1.pftrace").exists()
    (run / "trace.sqlite").unlink()
    assert main([str(run)]) == 6
    assert "is a folder, not a trace\n  try: in it: metrics.sqlite" in capsys.readouterr().err


def test_the_report_alone(recorded: Recorded, tmp_path: Path) -> None:
    done = analysis(recorded("h200_graph"), "--no-plots", "--html", "page.html", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == str(tmp_path / "page.html")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_phase_with_a_comma_in_its_name_is_one_phase(tmp_path: Path) -> None:
    """PyTorch's emit_nvtx names them like that."""
    export = Export()
    export.range("aten::addmm, op_id = 12, forward", 0, 100)
    export.range("b", 200, 300)
    for start in (10, 210):
        export.call(start, start + 5, start)
        export.kernel(start + 20, start + 30, start)
    path = export.write(tmp_path / "t.sqlite")
    (kernel,) = json.loads(analysis(path, "--json", cwd=tmp_path).stdout)["kernels_top"]
    assert kernel["phases"] == ["aten::addmm, op_id = 12, forward", "b"]
    tables = analysis(path, "--no-plots", "--html", "page.html", cwd=tmp_path)
    assert "aten::addmm, op_id = 12, forward, b" in " ".join(tables.stdout.split())
    assert "aten::addmm, op_id = 12, forward, b</td>" in (tmp_path / "page.html").read_text()


def test_json_instead_of_tables(recorded: Recorded, tmp_path: Path) -> None:
    done = analysis(recorded("h200_graph"), "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["devices"]
    assert list(tmp_path.iterdir()) == []


def test_json_has_the_quantiles_of_gaps_that_the_table_has(tmp_path: Path) -> None:
    export = launches("k")
    export.range("busy", 50_000, 70_000)
    export.range("idle", 500, 600)
    done = analysis(export.write(tmp_path / "t.sqlite"), "--json", cwd=tmp_path)
    found = {
        one["name"]: (one["gap_median_ns"], one["gap_p90_ns"]) for one in json.loads(done.stdout)["phases"]
    }
    assert found == {"busy": (26_000, 26_000), "idle": (None, None)}


def test_json_has_the_quantiles_of_a_devices_gaps_and_null_for_an_unknown_peak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gaps of 1, 2, … 100 ns between kernels of 10 ns."""
    export, now = Export(), 0
    for number in range(101):
        export.kernel(now + number, now + number + 10, number)
        now += number + 10
    path = export.write(tmp_path / "t.sqlite")
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE TARGET_INFO_GPU (id, name, memoryBandwidth, smCount)")
        database.execute("INSERT INTO TARGET_INFO_GPU VALUES (0, 'GPU', 0, 0)")
        database.commit()
    assert main([str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    gaps = found["devices"][0]["gaps"]
    assert gaps["count"] == 100
    assert [gaps[f"{name}_ns"] for name in ("median", "p90", "p99")] == pytest.approx([50.5, 90.1, 99.01])
    assert found["trace"]["gpus"] == [{"id": 0, "name": "GPU", "peak_gbps": None, "sms": None}]


def test_the_tables_count_kernels_apart_and_give_causes_of_the_idle_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """82 µs from the first kernel to the end of the last; in two gaps of 26 µs 20 of the host's own code."""
    export = launches("k")
    export.memset(26_000, 30_000, 0, stream=8)
    assert main([str(export.write(tmp_path / "t.sqlite")), "--no-plots"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "0 0.08 0.03 0.05 63.4% 3 1" in rows
    assert "host the launching thread was in its own code 0.04 76.9% 2" in rows
    assert "launch in the launch call, or on the way to the device 0.01 23.1% 0" in rows


def test_export_for_perfetto(recorded: Recorded, tmp_path: Path) -> None:
    done = analysis("export", recorded("h200_graph"), "--perfetto", cwd=tmp_path)
    (file,) = tmp_path.iterdir()
    assert done.returncode == 0 and done.stdout.strip() == str(file)
    assert file.suffix == ".pftrace" and file.stat().st_size > 10_000
    assert analysis("export", tmp_path / "nowhere.sqlite", "--perfetto", cwd=tmp_path).returncode == 6
    assert analysis("export", recorded("h200_graph"), cwd=tmp_path).returncode == 2
    unwritable = analysis("export", recorded("h200_graph"), "--perfetto", "--out", file / "x", cwd=tmp_path)
    assert unwritable.returncode == 5 and "error: can't write to" in unwritable.stderr


def test_a_reader_that_has_gone_changes_no_exit_code(tmp_path: Path) -> None:
    """1 is the code of a regression."""
    slow, fast = (write_run(tmp_path / name / "1", [ms] * 8) for name, ms in (("slow", 8.0), ("fast", 7.0)))
    trace = write_trace(tmp_path / "t.sqlite", 2, 1000, {"a": 1000})
    gate = ("check", "--max", "latency=+5%", "--baseline")
    for words, code in (
        ((*gate, slow, slow), 0),
        ((*gate, fast, slow), 1),
        ((*gate, fast, slow, "--json"), 1),
        (("compare", trace, trace), 0),
        ((trace, "--out", tmp_path / "out"), 0),
        (("export", trace, "--perfetto", "--out", tmp_path / "t.pftrace"), 0),
    ):
        reader, writer = os.pipe()
        os.close(reader)
        assert analysis(*words, cwd=tmp_path, stdout=writer).returncode == code, words
        os.close(writer)
    assert (tmp_path / "out" / "report.html").exists(), "what was asked for is written all the same"


def test_help_has_examples_and_needs_no_heavy_imports(tmp_path: Path) -> None:
    done = analysis("--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("python -m analysis trace.sqlite") == 4
    probe = (
        "import sys, analysis.__main__; print({'numpy', 'pandas', 'matplotlib', 'torch'} & set(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "set()"


def test_wrong_usage_is_2(tmp_path: Path) -> None:
    assert analysis(cwd=tmp_path).returncode == 2
    assert analysis("--nonsense", "t.sqlite", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    "words", [("TRACE",), ("export", "TRACE", "--perfetto"), ("compare", "TRACE", "TRACE")]
)
def test_ctrl_c_is_130_without_a_traceback(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(path: Path) -> Export:
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.reading.trace.Export", interrupted)
    trace = write_trace(tmp_path / "t.sqlite", 2, 1000, {"a": 1000})
    assert main([str(trace) if word == "TRACE" else word for word in words]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_while_a_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.__main__.import_module", interrupted)
    assert main(["check", "--help"]) == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_trace_without_nvtx_goes_on_with_a_warning(tmp_path: Path) -> None:
    export = Export()
    export.call(0, 5, 1)
    export.kernel(10, 20, 1)
    done = analysis(export.write(tmp_path / "t.sqlite"), "--no-plots", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: no NVTX ranges in the trace" in " ".join(done.stdout.split())


def test_a_folder_that_cannot_be_written(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = analysis(recorded("h200_graph"), "--out", tmp_path / "file" / "figures", cwd=tmp_path)
    assert done.returncode == 5 and "error: can't write to" in done.stderr
