"""Whatever a scope switches on, the tokens stay those of the baseline."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from experiments import models
from experiments.generate import GenerateDecoder
from experiments.options import Options
from experiments.static_loop import StaticLoop
from experiments.transcription import Transcription, build, stand_ins
from harness.errors import UserError
from harness.phases import PhaseClock
from kernels import accept
from tests.experiments.conftest import ROOT

COMBINATIONS = [
    ("flash",),
    ("cuda_graphs",),
    ("cuda_graphs", "graphs.how=compile"),
    ("cuda_graphs", "attention=eager", "graphs.how=none"),
    ("baseline", "attention=sdpa"),
    ("baseline", "batch=2"),
    ("cuda_graphs", "batch=2"),
    ("cuda_graphs", "batch=3"),
    ("fused_topk",),
    ("single_launch",),
    ("optimized",),
    ("optimized", "batch=2"),
    ("cuda_graphs", "attention=kernel"),
    ("speculative",),
    *[("speculative", f"speculate.tokens={drafts}", "batch=2") for drafts in (1, 2, 5, 7)],
    ("speculative", "loop=device", "speculate.how=scripted", "speculate.acceptance=0.8"),
]


@pytest.mark.parametrize("scope", COMBINATIONS, ids=" ".join)
def test_every_scope_gives_the_tokens_of_the_baseline(
    scope: tuple[str, ...], tokens_of: Callable[..., list[list[int]]]
) -> None:
    expected = tokens_of("baseline")
    assert [len(tokens) for tokens in expected] == [24, 24]
    assert len(set(expected[0])) > 8, "a model that repeats itself would prove nothing"
    assert expected[0] != expected[1], "nor one that does not listen"
    assert tokens_of(*scope) == expected


@pytest.mark.parametrize("scope", ["baseline", "cuda_graphs"])
def test_both_loops_mark_the_same_phases(
    scope: str, configure: Callable[..., DictConfig], clock: PhaseClock
) -> None:
    build(configure(scope, "max_new_tokens=7"), "cpu").run(clock)
    taken = clock.take()
    counts = {name: len(durations) for name, durations in taken.items()}
    assert counts == {"features": 2, "encode": 2, "prefill": 2, "decode": 2, "decode.step": 2 * 6}
    assert sum(taken["decode.step"]) <= sum(taken["decode"])


@pytest.mark.parametrize("stop_after", [1, 2, 3, 9, 23])
def test_both_loops_stop_at_the_end_token(
    stop_after: int, baseline: Transcription, clock: PhaseClock
) -> None:
    """The token at some position is declared the end token: both loops have to end before it."""
    loaded = baseline._loaded
    pcm = baseline._windows[0][2]
    features = baseline._log_mel(pcm, clock)
    free = GenerateDecoder(loaded, "eager", "cpu").decode(features, clock)[0]
    end = free[stop_after]
    expected = free[: free.index(end)]
    stopping = replace(loaded, end=end)
    rules = loaded.model.generation_config
    before, rules.eos_token_id = rules.eos_token_id, end
    try:
        with torch.inference_mode():
            assert GenerateDecoder(stopping, "eager", "cpu").decode(features, clock) == [expected]
            loop = StaticLoop(stopping, Options("sdpa", "static"), "cpu")
            assert loop.decode(features, clock) == [expected]
            assert loop.decode(features, clock) == [expected], "a second window must not see the first"
    finally:
        rules.eos_token_id = before
    clock.take()


def test_suppressed_tokens_are_never_chosen(baseline: Transcription, clock: PhaseClock) -> None:
    """Suppress what would have been chosen: both loops take the same second choice."""
    loaded = baseline._loaded
    features = baseline._log_mel(baseline._windows[0][2], clock)
    free = GenerateDecoder(loaded, "eager", "cpu").decode(features, clock)[0]
    strict = replace(loaded, suppress=(*loaded.suppress, free[3]), begin_suppress=(free[0],))
    rules = loaded.model.generation_config
    before = rules.suppress_tokens, rules.begin_suppress_tokens
    rules.suppress_tokens, rules.begin_suppress_tokens = list(strict.suppress), list(strict.begin_suppress)
    try:
        with torch.inference_mode():
            (expected,) = GenerateDecoder(strict, "eager", "cpu").decode(features, clock)
            (ours,) = StaticLoop(strict, Options("sdpa", "static"), "cpu").decode(features, clock)
    finally:
        rules.suppress_tokens, rules.begin_suppress_tokens = before
    assert ours == expected
    assert expected[0] != free[0] and free[3] not in expected


def test_margins_say_how_far_the_second_choice_was(baseline: Transcription) -> None:
    for window in baseline.transcripts():
        assert len(window["margins"]) == len(window["tokens"]) + 1, "one for the end token"
        assert min(window["margins"]) > 0, "a chosen token is the best one"


@pytest.mark.parametrize(
    "overrides, named",
    [
        (["attention=fast"], "eager, sdpa, flash, kernel"),
        (["attention=kernel"], "decoder=static, or attention=flash"),
        (["attention=kernel", "decoder=static", "graphs.how=compile"], "attention=sdpa"),
        (["decoder=magic"], "generate, static, fused"),
        (["graphs.how=auto", "decoder=static"], "none, manual, compile"),
        (["graphs.how=manual", "decoder=generate"], "decoder=static"),
        (["attention=flash", "decoder=static"], "attention=sdpa"),
        (["attention=flash", "decoder=fused"], "attention=sdpa"),
        (["attention=eager", "decoder=fused"], "attention=sdpa, or decoder=static"),
        (["attention=kernel", "decoder=fused"], "attention=sdpa, or decoder=static"),
        (["graphs.how=compile", "decoder=fused", "attention=sdpa"], "graphs.how=manual"),
        (["quantize=float8", "decoder=fused", "attention=sdpa"], "quantize=int8"),
        (["loop=device", "decoder=static"], "graphs.how=manual"),
        (["loop=device"], "decoder=static, or loop=host"),
        (["topk=fused"], "decoder=static, or topk=argmax"),
        (["encoder=compile"], "decoder=static, or encoder=eager"),
        (["quantize=int8"], "decoder=static, or quantize=none"),
        (["speculate.how=draft"], "decoder=static, or speculate.how=none"),
        (["speculate.how=scripted", "decoder=static"], "speculate.acceptance=0.8"),
        (["speculate.how=draft", "decoder=static", "speculate.acceptance=0.5"], "acceptance=null"),
        (["speculate.acceptance=2"], "a share from 0 to 1"),
        (["speculate.tokens=8"], "1 to 7"),
        (["speculate.tokens=0"], "1 to 7"),
        (["batch=0"], "at least 1"),
        (["quantize=int4"], "none, int8, int8_dynamic, float8"),
    ],
)
def test_choices_that_cannot_work_are_refused_with_the_reason(
    overrides: list[str], named: str, configure: Callable[..., DictConfig]
) -> None:
    from experiments.transcription import check

    with pytest.raises(UserError) as refused:
        check(configure("baseline", *overrides))
    assert named in refused.value.report()


MECHANISMS = [
    (),
    ("topk=torch",),
    ("topk=fused",),
    ("encoder=manual",),
    ("batch=2",),
    ("batch=3", "topk=fused"),
    ("speculate.how=draft", "topk=fused"),
    ("speculate.how=scripted", "speculate.acceptance=0.8", "speculate.tokens=5"),
    ("speculate.how=scripted", "speculate.acceptance=0.8", "batch=2", "topk=fused"),
    ("quantize=int8",),
    ("attention=kernel",),
    ("attention=kernel", "speculate.how=draft", "batch=2"),
    ("decoder=fused", "topk=fused"),
    ("decoder=fused", "topk=fused", "quantize=int8"),
    ("decoder=fused", "topk=fused", "batch=3"),
    ("decoder=fused", "speculate.how=draft", "topk=fused", "batch=2"),
    ("decoder=fused", "speculate.how=scripted", "speculate.acceptance=0.8", "topk=fused"),
]


def on_gpu(configure: Callable[..., DictConfig], *overrides: str, times: int = 10) -> list[Any]:
    """Token ids of both clips, again and again; no replay may differ from another."""
    work: Any = build(configure("cuda_graphs", "model=whisper_small_random", *overrides), "cuda")
    found = [[window["tokens"] for window in work.transcripts()] for _ in range(times)]
    work.close()
    assert all(again == found[0] for again in found)
    return found[0]


@pytest.mark.gpu
@pytest.mark.parametrize("mechanisms", MECHANISMS, ids=" ".join)
def test_captured_rounds_give_the_tokens_of_uncaptured_ones(
    mechanisms: tuple[str, ...], configure: Callable[..., DictConfig]
) -> None:
    """fp16: the same arithmetic in the same order, so bit for bit the same tokens, 20 windows in a row."""
    expected = on_gpu(configure, *mechanisms, "graphs.how=none", times=1)
    assert on_gpu(configure, *mechanisms, "graphs.how=manual") == expected


@pytest.mark.gpu
@pytest.mark.parametrize("mechanisms", MECHANISMS, ids=" ".join)
def test_the_device_repeats_rounds_as_the_host_does(
    mechanisms: tuple[str, ...], configure: Callable[..., DictConfig]
) -> None:
    expected = on_gpu(configure, *mechanisms)
    assert on_gpu(configure, *mechanisms, "loop=device") == expected


def test_without_nvcc_a_note_says_who_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    for obstacle, said in (("no nvcc", ["no nvcc: torch's operations"]), (None, [])):
        monkeypatch.setattr(accept, "obstacle", lambda obstacle=obstacle: obstacle)
        notes = stand_ins(Options("sdpa", "static", "manual"), "cuda")
        assert [note[: len(begin)] for note, begin in zip(notes, said, strict=True)] == said


@pytest.mark.gpu
@pytest.mark.parametrize(
    "mechanisms",
    [(), ("batch=2",), ("topk=torch", "speculate.how=scripted", "speculate.acceptance=0.8")],
    ids=" ".join,
)
def test_without_nvcc_torch_accepts_the_same_tokens(
    mechanisms: tuple[str, ...], configure: Callable[..., DictConfig], request: pytest.FixtureRequest
) -> None:
    assert accept.obstacle() is None
    expected = on_gpu(configure, *mechanisms)
    request.getfixturevalue("no_nvcc")
    (note,) = stand_ins(Options("sdpa", "static", "manual"), "cuda")
    assert "NVCC=/nowhere" in note
    assert on_gpu(configure, *mechanisms) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("mechanism", ["graphs.how=compile", "encoder=compile"])
def test_compiled_steps_repeat_themselves(mechanism: str, configure: Callable[..., DictConfig]) -> None:
    """Compiled kernels round differently from others, but not from call to call."""
    assert [len(tokens) for tokens in on_gpu(configure, mechanism)] == [100, 100]


@pytest.mark.gpu
@pytest.mark.parametrize("loop", ["host", "device"])
@pytest.mark.parametrize("speculate", ["none", "draft"])
def test_real_words_end_where_they_do_without_graphs(
    loop: str, speculate: str, configure: Callable[..., DictConfig]
) -> None:
    """The shipped model says when it is done: a loop on the device has to see it."""
    overrides = ("model=bundled", f"model.path={ROOT}/experiments/checkpoint", f"speculate.how={speculate}")
    expected = on_gpu(configure, *overrides, "graphs.how=none", times=1)
    assert on_gpu(configure, *overrides, f"loop={loop}") == expected


@pytest.mark.gpu
def test_a_graph_that_is_gone_leaves_nothing_behind(configure: Callable[..., DictConfig]) -> None:
    """Nothing may go on using the memory of a graph after it: not a library's workspace either."""

    def tokens(how: str) -> list[Any]:
        work = build(configure("cuda_graphs", "model=whisper_small_random", f"graphs.how={how}"), "cuda")
        found = [w["tokens"] for w in work.transcripts()]
        work.close()
        return found

    first = tokens("manual")
    gc.collect()
    torch.cuda.empty_cache()
    compiled = tokens("compile")
    assert len(compiled[0]) == len(first[0])
    assert tokens("manual") == first


def test_max_new_tokens_beyond_the_decoder_is_refused(configure: Callable[..., DictConfig]) -> None:
    cfg = configure("baseline", "max_new_tokens=1000")
    with pytest.raises(UserError, match="448 positions"):
        models.load(cfg.model, "eager", "en", "cpu", cfg.max_new_tokens)
