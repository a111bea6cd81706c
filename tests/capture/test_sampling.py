"""On a GPU gaps come from the trace, and memory traffic from a recording of its own with GPU metrics."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis import html
from harness import child, details, digest, dry_run, environment, moved, plan, publish, recorded, run, sweep
from harness.capture import capture_for
from harness.capture.nsys import NsysCapture
from harness.store import Store
from tests.capture.test_gpu_metrics import LIST, answers
from tests.harness.cli import ROOT
from tests.harness.test_plan import planned

TRACE = ROOT / "tests" / "data" / "h200_eager_2025.3.sqlite.xz"
GPU = {
    "name": "NVIDIA H200", "uuid": "GPU-1", "driver": "580", "cuda": 13000, "memory_bytes": 2**37,
    "pci_bus_id": "00000000:65:00.0",
}  # fmt: skip
# What follows `nsys profile ... --output STEM ... harness.child ROLE RUN`, instead of the child itself.
CHILD_ENDS = (
    'for run; do :; done; touch "$stem.nsys-rep"; case "$stem" in '
    '*/trace) cp {traced} "$run/traced.json" ;; *) {sampled} ;; esac'
)
OUT_OF_LUCK = json.dumps({"error": {"message": "out of luck", "hint": "", "exit_code": 4}})
EXPORT = 'case "$5" in */trace.sqlite) cp {trace} "$5" ;; *) cp {metrics} "$5" ;; esac'


@pytest.fixture
def on_a_gpu(
    tmp_path: Path, fake_nsys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., plan.Plan]:
    """Plans of runs whose nsys records a real trace and synthetic metrics; no GPU is touched.

    sampled: the shell command that the recording with GPU metrics comes down to.
    """
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "analysis"))
    from memory_trace import traced

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(environment, "gpu", lambda: GPU)
    data = tmp_path / "data"
    data.mkdir()
    unpacked = data / "trace.sqlite"
    unpacked.write_bytes(lzma.decompress(TRACE.read_bytes()))
    metrics = traced(data / "metrics.sqlite")
    results = {"measure": 1.0, "traced": 1.1, "sampled": 0.9}
    measured = _measured(data)
    for name, times in results.items():
        (data / f"{name}.json").write_text(json.dumps(_slower(measured, times)))
    monkeypatch.setattr(
        plan.Plan, "measure_command", lambda self, run: ["cp", f"{data}/measure.json", str(run)]
    )

    def make(*overrides: str, sampled: str = f'cp {data}/sampled.json "$run"') -> plan.Plan:
        ends = CHILD_ENDS.format(traced=f"{data}/traced.json", sampled=sampled)
        profile = answers(LIST).replace('"$@" ;;', f"{ends} ;;")
        fake_nsys(profile=profile, export=EXPORT.format(trace=unpacked, metrics=metrics))
        made = planned("capture=nsys", f"outputs={tmp_path / 'outputs'}", *overrides)
        made.config.device = "cuda"
        sampling = made.config.trace.gpu_metrics
        about = made.environment | {"gpu": GPU, "machine": "NVIDIA H200"}
        return replace(made, capture=capture_for("nsys", "cuda", sampling), environment=about)

    return make


def _measured(folder: Path) -> dict[str, Any]:
    """What the child without a profiler writes, from a run of the fake workload on the CPU."""
    from omegaconf import OmegaConf

    OmegaConf.save(planned("capture=none").config, folder / "config.yaml")
    assert child.main(["measure", str(folder)]) == 0
    return json.loads((folder / "measure.json").read_text())


def _slower(results: dict[str, Any], times: float) -> dict[str, Any]:
    """The same iterations, every step of the same length, `times` as long as a millisecond."""
    steps = {"decode.step": [round(times * 1e6)] * 3, "decode": [round(times * 3e6)]}
    return results | {"iterations": [{"iter_ns": 10**7, "phases": steps} for _ in range(3)]}


def made(tmp_path: Path, of: plan.Plan) -> tuple[run.Record, Path, str]:
    console = Console(width=120, record=True, file=io.StringIO())
    record = run.execute(of, ["test"], [], console)
    return record, tmp_path / "outputs" / record.id, console.export_text()


def test_gaps_and_memory_come_from_recordings_of_their_own(
    on_a_gpu: Callable[..., plan.Plan], tmp_path: Path
) -> None:
    record, folder, said = made(tmp_path, on_a_gpu())
    assert record.status == "finished", record.error
    assert (record.capture["trace"], record.capture["metrics"]) == ("trace.sqlite", "metrics.sqlite")
    assert not any("gpu-metrics" in word for word in record.capture["command"])
    command = record.capture["metrics_command"]
    assert "--gpu-metrics-devices=1" in command and command[-2:] == ["sample", str(folder)]
    assert command[command.index("--output") + 1] == str(folder / "metrics")

    alone = digest.digest(
        TRACE, tmp_path / "alone", digest.stamp_of(record, profiled=True), digest.Subject("", None)
    )
    gaps = {name: value for name, value in alone.metrics.items() if "idle" in name or "gap" in name}
    assert gaps and gaps.items() <= record.metrics.items(), "as without the recording with metrics"
    assert not any("dram" in name for name in alone.metrics) and record.metrics["decode.dram_gbps"] > 0
    assert record.metrics["profiling_overhead"] == pytest.approx(0.1)
    assert record.metrics["metrics_overhead"] == pytest.approx(-0.1)
    assert "a recording of its own, in which a token took 10.0% less time" in said

    files = {"plots/roofline.png", "plots/dram.svg", "trace.perfetto-trace.gz"}
    assert files <= set(record.artifacts) and all((folder / name).exists() for name in files)
    assert f"{folder}/trace.perfetto-trace.gz (open in ui.perfetto.dev)" in said.replace("\n", "")
    rows = Store(tmp_path / "outputs")._db.query("select source from metrics where metric like '%.dram_gbps'")
    assert {row["source"] for row in rows} == {"sampled"}


def test_what_a_trace_says_is_computed_once_and_kept_for_the_sweep(
    on_a_gpu: Callable[..., plan.Plan], tmp_path: Path
) -> None:
    record, folder, _ = made(tmp_path, on_a_gpu())
    for name in ("trace.sqlite", "metrics.sqlite"):
        (folder / name).unlink()
    shown = details.load(folder, "it")
    assert shown is not None and shown.memory is not None and shown.memory.period_ns > 0
    of_run = (folder / "report.html").read_text()
    own = replace(shown, label=record.scope, bar=replace(shown.bar, label=record.scope))
    page = html.render(html.Report("", "", bars=[own.bar], traced=[own]))
    for part in ("<svg", "<tbody>"):
        found = [piece.split("</")[0] for piece in page.split(part)[1:]]
        assert len(found) > 3 and all(piece in of_run for piece in found)
    kept = shown.memory
    moved.save(kept, tmp_path / "again.json")
    again = moved.load(tmp_path / "again.json")
    assert again is not None and (again.kernels.dtypes == kept.kernels.dtypes).all()
    (folder / moved.MEMORY_JSON).write_text('{"kernels": 1')
    shown = details.load(folder, "it")
    assert shown is not None and shown.memory is None, "a damaged file is as good as none"
    (folder / details.DETAIL_JSON).write_text('{"bar": {}}')
    assert details.load(folder, "it") is None


@pytest.mark.parametrize(
    ("sampled", "why"),
    [
        ("echo Illegal --gpu-metrics-devices argument: 0.; exit 1", "nsys refused to sample GPU metrics"),
        ("exit 1", "sampling GPU metrics (nsys): ended without results"),
        (f"echo '{OUT_OF_LUCK}' > \"$run/sampled.json\"", "out of luck"),
    ],
)
def test_a_run_without_the_recording_is_finished_and_says_why(
    on_a_gpu: Callable[..., plan.Plan], tmp_path: Path, sampled: str, why: str
) -> None:
    record, folder, said = made(tmp_path, on_a_gpu(sampled=sampled))
    assert record.status == "finished", record.error
    assert f"nothing is known about memory bandwidth: {why}" in " ".join(said.split())
    assert record.capture["metrics"] is None and not (folder / "plots" / "roofline.png").exists()
    assert record.metrics["idle_share"] > 0
    assert not any("dram" in name or name == "metrics_overhead" for name in record.metrics)


def test_off_is_one_recording_less(on_a_gpu: Callable[..., plan.Plan], tmp_path: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    dry_run.show_commands(on_a_gpu(), console)
    assert "harness.child sample" in console.export_text()
    record, folder, _ = made(tmp_path, on_a_gpu("trace.gpu_metrics=off"))
    assert record.status == "finished" and not (folder / "metrics.sqlite").exists()


def test_the_child_that_is_sampled_has_iterations_of_its_own(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    cfg = planned("capture=none", "trace.iterations=3", "trace.metric_iterations=2").config
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    assert child.main(["sample", str(tmp_path)]) == 0
    assert len(json.loads((tmp_path / plan.SAMPLED_JSON).read_text())["iterations"]) == 2


@pytest.mark.slow
def test_published_metrics_are_shown_where_there_is_no_gpu(
    on_a_gpu: Callable[..., plan.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, folder, _ = made(tmp_path, on_a_gpu())
    (folder / "ncu.csv").write_text(f'==PROF== in {sys.executable}\n"ID","Process ID"\n"0","{record.host}"\n')
    record.capture["kernels"] = "ncu.csv"
    record.save(tmp_path / "outputs")
    results = tmp_path / "results"
    (published,) = publish.publish(tmp_path / "outputs", results / "h200")
    names = {path.name for path in published.iterdir()}
    assert {"trace.sqlite.xz", "metrics.sqlite.xz", "ncu.csv.xz"} <= names
    assert not names & {"trace.sqlite", "metrics.sqlite", "trace.perfetto-trace.gz"}
    assert publish.show_all(results / "h200") == []
    every = (results / "h200" / "report.html").read_text()
    assert "The longest gaps" in every and "DRAM" in every, "from what is kept: the trace is not whole"
    (published / "ncu.csv.xz").unlink()

    monkeypatch.setattr(recorded, "FOLDER", results)
    monkeypatch.setattr(environment, "gpu", lambda: None)
    here = planned("capture=kineto", f"outputs={tmp_path / 'cpu'}")
    there = run.execute(here, ["test"], [], Console(quiet=True))
    assert there.status == "finished", there.error
    assert {"plots/roofline.png", "plots/dram.png"} <= set(there.artifacts)
    note = there.capture["recorded"]["note"]
    assert note in (tmp_path / "cpu" / there.id / "plots" / "dram.svg").read_text()
    assert not any("dram" in name for name in there.metrics), "those are the recorded run's"
    assert there.capture["recorded"]["metrics"]["decode.dram_gbps"] == record.metrics["decode.dram_gbps"]
    shown = details.load(tmp_path / "cpu" / there.id, "it")
    assert shown is not None and shown.memory is not None

    (published / "metrics.sqlite.xz").unlink()  # as runs were published before
    shutil.rmtree(tmp_path / "cpu")
    older = run.execute(here, ["test"], [], Console(quiet=True))
    assert older.status == "finished" and "plots/gaps.png" in older.artifacts
    assert "plots/dram.png" not in older.artifacts


def test_the_ladder_knows_causes_and_tells_none_from_unknown() -> None:
    known = sweep._causes({"decode.idle_share": 0.3, "decode.idle_share_host": 0.3})
    assert known["host_share"] == 0.3 and known["api_share"] == 0.0
    unknown = sweep._causes({"decode.idle_share": 0.3})
    assert all(share != share for share in unknown.values()), "an older run: NaN, not 0"


def test_only_nsys_samples() -> None:
    assert capture_for("kineto", "cuda", "auto").sample_command(["x"], Path("/r"), "cuda") == []
    assert capture_for("none", "cuda", "auto").sample_command(["x"], Path("/r"), "cuda") == []
    assert NsysCapture("auto").sample_command(["x"], Path("/r"), "cpu") == []
