"""Pages of published runs: one unit for all, and numbers that say which machine they are of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import details, page
from harness.record import Record
from tests.harness.cli import ROOT

PUBLISHED = ROOT / "results" / "h200"


def run_of(scope: str, outputs: Path = PUBLISHED) -> Record:
    (path,) = outputs.glob(f"{scope}/*/run.json")
    return Record.load(path.parent)


def test_a_loop_on_the_device_is_shown_per_token_like_the_others() -> None:
    scopes = ["baseline", "single_launch"]
    report = page.of_sweep([run_of(scope) for scope in scopes], scopes, PUBLISHED, links="")
    steps, loop = report.bars
    assert steps.tokens and loop.tokens and not steps.graphs and loop.graphs
    assert loop.ms() == pytest.approx(run_of("single_launch").metrics["ms_per_token"], rel=0.05)
    assert steps.per_unit(steps.kernels) == report.runs[0].metrics["kernels_per_token"]
    metrics = report.runs[0].metrics
    assert steps.unprofiled_interval == (metrics["ms_per_token.low"], metrics["ms_per_token.high"])
    assert dict(report.environment)["On each run's page"].startswith("what differs: ")
    assert "Command" not in dict(report.environment)


def test_a_page_warns_of_latencies_of_few_iterations() -> None:
    words = PUBLISHED.parent / "h200-words"  # of one iteration each
    scopes = ["baseline", "int8"]
    report = page.of_sweep([run_of(scope, words) for scope in scopes], scopes, words, links="")
    (warning,) = report.warnings
    assert warning.startswith("baseline, int8: fewer than 6 iterations")
    assert page.of_run(run_of("int8", words), words, None).warnings
    assert not page.of_run(run_of("int8"), PUBLISHED, None).warnings


def test_each_tile_of_a_run_with_a_recorded_trace_says_whose_it_is() -> None:
    record = run_of("baseline")
    detail = details.load(PUBLISHED / record.id, "baseline")
    there, own = {"wer": 0.5, "ms_per_token": 7.0}, {"wer": 0.1, "ms_per_token": 80.0}
    bundled = {"note": "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4", "metrics": there}
    capture = record.capture | {"recorded": bundled}
    here = replace(record, capture=capture, model="tiny", metrics=own)
    tiles = page.of_run(here, PUBLISHED, detail).figures
    assert tiles["word error rate (this machine, tiny)"] == "10.00%"
    assert tiles["ms per token, unprofiled (this machine, tiny)"] == "80.0"
    assert tiles["ms per token, unprofiled (recorded on NVIDIA H200)"] == "7.00"
    assert all(what.endswith(("(this machine, tiny)", "(recorded on NVIDIA H200)")) for what in tiles)
    assert "50.00%" not in tiles.values(), "of another model"


def test_a_page_says_what_was_expected_and_found() -> None:
    record = run_of("speculative")
    (one,) = page.of_run(record, PUBLISHED, None).hypotheses
    assert one.claim.startswith("Verifying four tokens costs about what one costs")
    assert [(row.metric, row.expected, row.found, row.outcome) for row in one.expectations] == [
        ("speedup", "at least 1.5", "0.7128", "DID NOT HOLD"),
        ("acceptance", "at least 60.0%", "0.0%", "DID NOT HOLD"),
        ("token_agreement", "at least 99.00%", "100.00%", "held"),
    ]
    assert one.failed
    why = {"value": None, "held": None, "why": "not measurable here"}
    here = replace(record, verdict=[record.verdict[0] | why])
    (one,) = page.of_run(here, PUBLISHED, None).hypotheses
    (row,) = one.expectations
    assert (row.found, row.outcome) == ("", "undecided: not measurable here") and not one.failed


def test_runs_that_had_nothing_to_show_have_no_line() -> None:
    scopes = ["baseline", "int8", "speculative"]
    baseline, *others = map(run_of, scopes)
    runs = [replace(baseline, verdict=[]), *others]
    lines = page.of_sweep(runs, scopes, PUBLISHED, links="").hypotheses
    assert [(line.label, line.outcome) for line in lines] == [
        ("int8", "did not hold: token_agreement"),
        ("speculative", "did not hold: speedup, acceptance"),
    ]
    assert lines[0].tokens.endswith("80.00% equal") and lines[1].tokens == "identical"
    assert not page.of_run(runs[0], PUBLISHED, None).hypotheses


def test_a_page_says_what_a_run_was_made_on_and_how() -> None:
    record = run_of("baseline")
    gpu = {"name": "NVIDIA H200", "memory_bytes": 140 * 2**30, "driver": "580.9", "cuda": 12040}
    cpu = {"model": "Xeon", "cores": 16, "memory_bytes": 96 * 2**30}
    record = replace(
        record,
        environment=record.environment | {"gpu": gpu, "cpu": cpu},
        metrics={"profiling_overhead": 0.443, "metrics_overhead": -0.04},
    )
    about = dict(page.environment(record, PUBLISHED / record.id))
    assert about["GPU"] == "NVIDIA H200, 140 GiB, driver 580.9, CUDA 12.4"
    assert about["CPU"] == "Xeon, 16 cores, 96 GiB"
    assert about["Measured"] == "15 iterations after 3 of warm-up"
    assert about["Profiler's cost"] == "a token takes 44.3% longer while traced"
    assert about["GPU metrics"] == "recorded apart, with tokens that take 4.0% less time"


def test_the_command_of_a_page_can_be_typed_again() -> None:
    words = ["/usr/bin/python", "-m", "harness", "+scope=flash", "audio.path=my talk (1).wav"]
    report = page.of_run(replace(run_of("flash"), command=words), PUBLISHED, None)
    assert (
        dict(report.environment)["Command"] == "python -m harness +scope=flash 'audio.path=my talk (1).wav'"
    )
