"""Peers are given the same weights, so they give the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import contest, windows
from benchmarks.peers.contenders import REFERENCE, Task, chosen, floor_bytes, named
from harness import environment
from harness.phases import HostTimer, PhaseClock, SilentAnnotator


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Two windows, 24 tokens each, on the CPU."""
    folder = tmp_path_factory.mktemp("sound")
    windows.write(folder, 2)
    return Task("tiny_random", 2, 24, "cpu", str(folder), warmup=1, iterations=1, seconds=1.0)


@pytest.fixture(scope="module")
def reference(small: Task) -> dict[str, Any]:
    from benchmarks.peers import generate

    return generate.measure(small, "eager")


@pytest.fixture
def openai_whisper() -> Iterator[Any]:
    """It is no dependency of the project. What a contender changes in it is put back."""
    reason = "NOT TESTED beside openai-whisper: pip install openai-whisper==20250625"
    whisper = pytest.importorskip("whisper.model", reason=reason) and pytest.importorskip("whisper")
    before = whisper.decoding.get_tokenizer
    yield whisper
    whisper.decoding.get_tokenizer = before


def test_windows_have_tokens_of_their_own(reference: dict[str, Any]) -> None:
    assert len(set(map(tuple, reference["tokens"]))) == 2
    assert all(value > 0 for name in ("step_ms", "encode_ms", "total_ms") for value in reference[name])


@pytest.mark.parametrize("how", ["sdpa", "static"])
def test_transformers_gives_the_same_tokens_every_way(
    small: Task, reference: dict[str, Any], how: str
) -> None:
    from benchmarks.peers import generate

    assert generate.measure(small, how)["tokens"] == reference["tokens"]


@pytest.mark.parametrize("compiles, note", [
    ("never", ["its step was never compiled"]),
    ("warming up", []),
    ("timed, too", ["recompiled during the timed iterations: 1"]),
])  # fmt: skip
def test_a_static_cache_says_whether_its_step_was_compiled_in_time(
    small: Task, reference: dict[str, Any], compiles: str, note: list[str]
) -> None:
    import torch
    from transformers import CompileConfig

    from benchmarks.peers import generate

    compiled = CompileConfig(backend="eager", mode=None)
    compiled._compile_all_devices = True  # as on a GPU
    more = {} if compiles == "never" else {"compile_config": compiled}
    peer = generate.Generate(small, "static", **more)
    clock = PhaseClock(HostTimer(), SilentAnnotator())
    peer.run(clock)
    if compiles == "timed, too":
        torch.compiler.reset()
    peer.run(clock)
    assert peer.notes() == note and peer.tokens() == reference["tokens"]


def test_openai_whisper_gives_the_same_tokens(
    small: Task, reference: dict[str, Any], openai_whisper: Any
) -> None:
    from benchmarks.peers import openai_whisper as contender

    found = contender.measure(small, "")
    assert found["tokens"] == reference["tokens"]
    assert found["notes"] == ["step and window include that it turns the tokens into text"], (
        "in fp32, no casts"
    )


@pytest.mark.parametrize("model", ["tiny_random", "whisper_small_random"])
def test_openai_whisper_starts_and_suppresses_as_transformers_does(model: str, openai_whisper: Any) -> None:
    from benchmarks.peers.contenders import model as choice
    from benchmarks.peers.openai_whisper import converted
    from experiments import models

    shape = {"d_model": 64, "layers": 1, "heads": 1}
    cfg = dict(choice(model)) | {"shape": dict(choice(model)["shape"]) | shape}
    loaded = models.load(cfg, "eager", "en", "cpu", 4)
    options = openai_whisper.DecodingOptions(language="en", without_timestamps=True, sample_len=4)
    decoding = openai_whisper.decoding.DecodingTask(converted(loaded, openai_whisper), options)
    assert decoding.initial_tokens == loaded.prompt and decoding.tokenizer.eot == loaded.end
    assert {*decoding.tokenizer.encode(" "), decoding.tokenizer.eot} == set(loaded.begin_suppress)


def test_ours_gives_the_same_tokens(
    small: Task, reference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from benchmarks.peers import ours

    again = "experiments.transcription.Transcription.transcripts"
    monkeypatch.setattr(again, lambda _: pytest.fail("decoded once more: what was timed is what counts"))
    folder = Path(small.sound)
    (folder / "001.wav").rename(folder / "001.not")  # batch 1: every scope can do that
    one = replace(small, batch=1)
    try:
        found = ours.measure(one, "cuda_graphs")
    finally:
        (folder / "001.not").rename(folder / "001.wav")
    assert found["tokens"] == reference["tokens"][:1]
    assert found["floor_bytes"] == floor_bytes(one), "what its model has, and what its settings say"


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 3])
def test_on_a_gpu_the_peers_run_in_processes_of_their_own(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    task = Task("tiny_random", batch, 24, "cuda", "", warmup=2, iterations=2, seconds=1.0)
    rounds = [(one, task) for one in chosen(["transformers*", "openai_whisper"])]
    rows = list(contest.contest(rounds, environment.stamp("cuda"), 400))
    assert rows[0]["contender"] == REFERENCE and rows[0]["peak_bps"]
    for row in rows:
        assert "failed" not in row, row["failed"]
        if row["contender"] == named("openai_whisper").name and "refused" in row:
            continue  # it is not installed
        found = contest.compared(row, rows[0])
        assert min(row["step_ms"] + row["encode_ms"] + row["total_ms"]) > 0
        # fp16: a tie may fall either way, after which a window goes on differently; the first token is none.
        assert row is rows[0] or found["agreement"]["first_difference"] != 0
