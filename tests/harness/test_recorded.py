"""Without a GPU, the scope's recorded trace is analysed, and says that it is recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from analysis.plots import Stamp
from harness import details, digest, page, plan, recorded, report, run, usage
from tests.harness.cli import ROOT
from tests.harness.test_plan import planned

TRACE = ROOT / "tests" / "data" / "h200_eager_2025.3.sqlite.xz"
NOTE = "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "h200" / "fake_one" / "20261122T120000Z"
    folder.mkdir(parents=True)
    shutil.copy(TRACE, folder / "trace.sqlite.xz")
    about = {
        "started_utc": "20261122T120000Z",
        "environment": {"machine": "NVIDIA H200", "git": {"commit": "1a2b3c4d5e", "dirty": False}},
        "model": "some_model",
        "metrics": {"ms_per_token": 6.9, "idle_share": 0.875},
    }
    (folder / "run.json").write_text(json.dumps(about))
    OmegaConf.save(made(tmp_path).config, folder / "config.yaml")
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "results")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def made(tmp_path: Path) -> plan.Plan:
    expect = "hypothesis.expect=[{metric: idle_share, at_least: 0.8}, {metric: ms_per_token, at_most: 1}]"
    return planned("capture=kineto", f"outputs={tmp_path / 'outputs'}", expect)


def test_a_cpu_shows_the_recorded_trace_and_counts_nothing_of_it(bundled: None, tmp_path: Path) -> None:
    record = run.execute(made(tmp_path), ["test"], [], Console(quiet=True))
    folder = tmp_path / "outputs" / record.id
    assert record.status == "finished", record.error
    assert {"plots/gaps.png", "plots/timeline.svg", "plots/latency.png"} <= set(record.artifacts)
    assert not {"idle_share", "profiling_overhead"} & record.metrics.keys()
    shown = record.capture["recorded"]
    assert shown["note"] == NOTE and shown["metrics"]["idle_share"] == 0.875, "that of the whole run"
    figure = (folder / "plots" / "gaps.svg").read_text()
    assert NOTE in figure, "a figure from it has to say so"
    assert f"analysed on {record.environment['machine']}" in figure
    report = (folder / "report.txt").read_text()
    assert "could not be captured" in report and NOTE in report
    page = (folder / "report.html").read_text()
    assert "report.html" in record.artifacts
    assert "Recorded on NVIDIA H200: the GPU idles" in page and NOTE in page
    assert "6.90 ms" in page, "the recorded run's own measurement"
    idle, token = record.verdict
    assert idle["held"] is None and f"not measurable here; {NOTE}: " in idle["why"]
    assert token["why"].endswith("did not hold (6.9 ms)"), (
        "latency is that of the recorded run's own measurement"
    )


def test_a_trace_of_other_mechanisms_is_not_shown(bundled: None, tmp_path: Path) -> None:
    cfg = made(tmp_path).config
    assert recorded.find(cfg) is not None
    cfg.graphs.how = "compile"
    assert recorded.find(cfg) is None


def test_a_trace_from_before_there_was_a_setting_had_its_default(bundled: None, tmp_path: Path) -> None:
    (published,) = (tmp_path / "results").glob("*/*/*/config.yaml")
    older = OmegaConf.load(published)
    for name in ("loop", "batch", "topk", "encoder", "quantize", "speculate"):
        del older[name]
    OmegaConf.save(older, published)
    cfg = made(tmp_path).config
    assert recorded.find(cfg) is not None
    cfg.loop = "device"
    assert recorded.find(cfg) is None


def test_a_scope_that_was_not_recorded_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "nothing")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    record = run.execute(made(tmp_path), ["test"], [], Console(quiet=True))
    assert record.status == "finished", record.error
    report = (tmp_path / "outputs" / record.id / "report.txt").read_text()
    assert "no trace of these settings that was recorded on a GPU" in report
    assert "report.html" in record.artifacts
    assert [row["why"] for row in record.verdict] == ["not measurable here"] * 2


@pytest.mark.slow
def test_the_page_sets_the_recorded_reference_beside_it_and_survives_a_damaged_one(
    bundled: None, tmp_path: Path
) -> None:
    published = tmp_path / "results" / "h200"
    shutil.copytree(published / "fake_one", published / "fake_zero")
    record = run.execute(made(tmp_path), ["test"], [], Console(quiet=True))
    outputs = tmp_path / "outputs"
    config = outputs / record.id / "config.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(config), {"compare_with": "fake_zero"}), config)
    shown = page.of_run(record, outputs, details.load(outputs / record.id, record.scope))
    assert [bar.label for bar in shown.bars] == ["fake_zero", "fake_one"]
    assert all(NOTE in bar.note and bar.unprofiled_ms == 6.9 for bar in shown.bars)

    (outputs / "fake_zero" / "x").mkdir(parents=True)
    (outputs / "fake_zero" / "x" / "run.json").write_text("{")
    record.tokens_match = {"run": "fake_zero/x", "identical": True, "windows": 1}
    damaged = page.of_run(record, outputs, None)
    assert any("fake_zero is not shown beside it" in warning for warning in damaged.warnings)
    assert len(damaged.runs) == 1


def published(scope: str) -> recorded.RecordedTrace | None:
    usage.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return recorded.find(compose("config", overrides=[f"+scope={scope}"]))


@pytest.mark.parametrize("scope", [path.stem for path in (ROOT / "conf" / "scope").glob("*.yaml")])
def test_every_scope_has_a_trace_of_its_own_to_show(scope: str) -> None:
    found = published(scope)
    assert found is not None and found.trace.parents[1].name == scope and found.sampled is not None
    assert recorded.beside(found.trace, "baseline") is not None, "which pages show beside it"


@pytest.mark.parametrize(
    ("scope", "said"), [("int8", "a decode step moves 1"), ("optimized", "while decoding DRAM is at 1,")]
)
def test_what_is_published_of_a_trace_says_what_memory_did(scope: str, said: str, tmp_path: Path) -> None:
    found = published(scope)
    assert found is not None
    stamp = Stamp("", "", "", profiled=True)
    known = digest.digest(found.trace, tmp_path, stamp, page.recorded_subject(scope, found))
    assert said in report.memory_sentence(known.metrics) and "idle_share" in known.metrics
    kept = found.metrics["decode.dram_gbps"]
    assert known.metrics["decode.dram_gbps"] == pytest.approx(kept, rel=0.05), "of its first steps"
