"""Rounds of decoding: rows that end, fill up or begin elsewhere leave the others alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from experiments.draft import draft_of
from experiments.generate import GenerateDecoder
from experiments.models import LoadedModel
from experiments.options import Options, Speculation
from experiments.static_loop import StaticLoop
from experiments.transcription import Transcription, build
from harness.phases import HostTimer, PhaseClock, SilentAnnotator

pytestmark = pytest.mark.xdist_group("rounds")  # what they share is made once

STATIC = Options("sdpa", "static")


def silent() -> PhaseClock:
    return PhaseClock(HostTimer(), SilentAnnotator())


@pytest.fixture(scope="module")
def features(baseline: Transcription) -> torch.Tensor:
    """Both clips, [2, n_mels, 3000]."""
    return torch.cat([baseline._log_mel(pcm, silent()) for _, _, pcm in baseline._windows])


@pytest.fixture(scope="module")
def free(baseline: Transcription, features: torch.Tensor) -> list[list[int]]:
    """What transformers' own loop gives for both, one by one."""
    decoder = GenerateDecoder(baseline._loaded, "eager", "cpu")
    with torch.inference_mode():
        return [decoder.decode(one[None], silent())[0] for one in features]


@pytest.fixture(scope="module")
def random_draft(baseline: Transcription, configure: Callable[..., DictConfig]) -> Any:
    return draft_of(baseline._loaded.model, configure("baseline").model)


def speculating(tokens: int, **other: Any) -> Options:
    return replace(STATIC, speculate=Speculation("draft", tokens), **other)


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("stop", range(1, 23))
def test_each_row_of_a_batch_stops_at_its_own_end_token(
    stop: int, drafts: int, baseline: Transcription, features: torch.Tensor, free: list[list[int]],
    random_draft: Any,
) -> None:  # fmt: skip
    """The token that the first window has at some position is declared the end token."""
    end = free[0][stop]
    expected = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in free]
    stopping = replace(baseline._loaded, end=end)
    options = speculating(drafts, batch=3) if drafts else replace(STATIC, batch=3)
    loop = StaticLoop(stopping, options, "cpu", random_draft if drafts else None)
    assert loop.decode(features, silent()) == expected
    assert loop.decode(features[1:], silent()) == expected[1:], "rows that only fill the batch"
    assert loop.decode(features.flip(0), silent()) == expected[::-1]


def test_generate_stops_each_row_of_a_batch_at_its_own_end_token(
    baseline: Transcription, features: torch.Tensor, free: list[list[int]]
) -> None:
    end = next(token for token in free[0][5:] if token not in free[1])
    loaded = baseline._loaded
    rules = loaded.model.generation_config
    before, rules.eos_token_id = rules.eos_token_id, end
    clock = silent()
    try:
        with torch.inference_mode():
            found = GenerateDecoder(replace(loaded, end=end), "eager", "cpu").decode(features, clock)
    finally:
        rules.eos_token_id = before
    assert found == [free[0][: free[0].index(end)], free[1]]
    assert len(clock.take()["decode.step"]) == len(free[1]) - 1, "the phases go on until the last row ends"


@pytest.mark.parametrize(
    "count, drafts", [*itertools.product((2, 3, 5), (0, 2, 7)), (444, 0), (444, 7)], ids=str
)
def test_limits_are_kept_up_to_the_last_position_of_the_model(
    count: int, drafts: int, baseline: Transcription, features: torch.Tensor, free: list[list[int]],
    random_draft: Any,
) -> None:  # fmt: skip
    limited = replace(baseline._loaded, new_tokens=count)
    draft, options = (random_draft, speculating(drafts)) if drafts else (None, STATIC)
    (found,) = StaticLoop(limited, options, "cpu", draft).decode(features[:1], silent())
    assert len(found) == count and found[:24] == free[0][:count]


@pytest.mark.parametrize("drafts", [0, 3])
def test_rows_with_prompts_of_different_length_decode_as_they_do_alone(
    drafts: int, baseline: Transcription, features: torch.Tensor, random_draft: Any
) -> None:
    loaded: LoadedModel = baseline._loaded
    prompts = [loaded.prompt, (1003, 17, 33, 101, *loaded.prompt), loaded.prompt[:1]]
    windows = features[[0, 1, 0]]
    draft = random_draft if drafts else None

    def decode(prompts: list[tuple[int, ...]], windows: torch.Tensor, room: int | None) -> list[list[int]]:
        options = speculating(drafts, batch=len(prompts)) if drafts else replace(STATIC, batch=len(prompts))
        loop = StaticLoop(loaded, options, "cpu", draft, prompt_room=room)
        return loop.decode(windows, silent(), prompts)

    alone = [
        decode([prompt], window[None], len(prompt))[0]
        for prompt, window in zip(prompts, windows, strict=True)
    ]
    assert decode(prompts, windows, 11) == alone
    assert len({tuple(tokens) for tokens in alone}) == 3


def test_what_was_described_once_is_not_described_again(
    baseline: Transcription, features: torch.Tensor, free: list[list[int]]
) -> None:
    """Prompts are copied to the device when they change; the prefill starts from them each time."""
    loop = StaticLoop(baseline._loaded, STATIC, "cpu")
    other = (17, *baseline._loaded.prompt[1:])
    assert loop.decode(features[:1], silent()) == free[:1]
    changed = loop.decode(features[:1], silent(), [other])
    assert changed != free[:1]
    assert loop.decode(features[:1], silent()) == free[:1]
    assert loop.decode(features[:1], silent(), [other]) == changed


@pytest.mark.parametrize("drafts", [0, 3])
def test_a_window_of_nan_leaves_the_next_alone(
    drafts: int, baseline: Transcription, features: torch.Tensor, free: list[list[int]], random_draft: Any
) -> None:
    options = speculating(drafts, topk="torch") if drafts else replace(STATIC, topk="argmax")
    loop = StaticLoop(baseline._loaded, options, "cpu", random_draft if drafts else None)
    before, after = silent(), silent()
    assert loop.decode(features[:1], before) == free[:1]
    loop.decode(torch.full_like(features[:1], torch.nan), silent())
    assert loop.decode(features[:1], after) == free[:1]
    assert before.counts == after.counts, "nor is the draft another one"


def test_a_prompt_that_has_no_room_is_refused(baseline: Transcription, features: torch.Tensor) -> None:
    loop = StaticLoop(baseline._loaded, STATIC, "cpu")
    with pytest.raises(ValueError, match="5 tokens, and there is room for 4"):
        loop.decode(features[:1], silent(), [(17, *baseline._loaded.prompt)])


def test_timestamps_keep_whispers_rules(baseline: Transcription, features: torch.Tensor) -> None:
    """A prompt without <|notimestamps|>: the first token is a timestamp, and they never go back."""
    loaded = baseline._loaded
    first_stamp = loaded.model.generation_config.no_timestamps_token_id + 1
    prompt = loaded.prompt[:-1]
    loop = StaticLoop(loaded, replace(STATIC, topk="torch"), "cpu", timestamps=True)
    ((first, *rest),) = loop.decode(features[:1], silent(), [prompt])
    stamps = [token for token in (first, *rest) if token >= first_stamp]
    assert first >= first_stamp and stamps == sorted(stamps)
    assert first_stamp - 1 not in rest


def test_what_decoding_gave_is_counted(configure: Callable[..., DictConfig]) -> None:
    """Of 7 tokens of each of 2 windows one comes with the prefill."""
    for scope, batch in (("baseline", 1), ("cuda_graphs", 1), ("cuda_graphs", 3), ("baseline", 2)):
        clock = silent()
        build(configure(scope, "max_new_tokens=7", f"batch={batch}"), "cpu").run(clock)
        assert clock.counts["tokens"] == 2 * 6
        assert clock.counts.get("rounds", 12) == 2 * 6
