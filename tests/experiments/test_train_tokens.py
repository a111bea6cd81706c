"""The tokenizer is laid out as Whisper's, writes any text, and is read by transformers as it is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, WhisperTokenizer

from experiments.train.text import training_sentence
from experiments.train.tokens import (
    LAST_TIMESTAMP,
    SPECIAL,
    TEXT_TOKENS,
    TIMESTAMP_STEP_S,
    VOCAB_SIZE,
    Ids,
    train_tokenizer,
)
from tests.experiments.conftest import ROOT

SHIPPED = ROOT / "experiments/checkpoint"
IDS = Ids()


@pytest.fixture(scope="module")
def trained() -> WhisperTokenizer:
    rng = random.Random(0)
    return train_tokenizer(training_sentence(rng) for _ in range(10_000))


@pytest.fixture(scope="module", params=["trained", "saved and loaded", "shipped"])
def tokenizer(
    request: pytest.FixtureRequest, trained: WhisperTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> WhisperTokenizer:
    if request.param == "trained":
        return trained
    if request.param == "shipped":
        return AutoTokenizer.from_pretrained(SHIPPED)
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_ids(tokenizer: WhisperTokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def test_the_layout_is_whispers(tokenizer: WhisperTokenizer) -> None:
    assert len(tokenizer) == VOCAB_SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(VOCAB_SIZE))
    assert tokenizer.convert_ids_to_tokens(range(TEXT_TOKENS, IDS.timestamps)) == list(SPECIAL)
    named = {
        "end": "<|endoftext|>",
        "start": "<|startoftranscript|>",
        "english": "<|en|>",
        "translate": "<|translate|>",
        "transcribe": "<|transcribe|>",
        "start_of_lm": "<|startoflm|>",
        "previous": "<|startofprev|>",
        "no_speech": "<|nospeech|>",
        "no_timestamps": "<|notimestamps|>",
        "timestamps": "<|0.00|>",
    }
    assert {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()} == vars(IDS)


def test_transformers_finds_the_timestamps_behind_the_last_special_token(tokenizer: WhisperTokenizer) -> None:
    assert tokenizer.all_special_ids == list(range(TEXT_TOKENS, IDS.timestamps))
    assert tokenizer.convert_ids_to_tokens(tokenizer.all_special_ids[-1] + 1) == "<|0.00|>"
    times = tokenizer.convert_ids_to_tokens(range(IDS.timestamps, VOCAB_SIZE))
    assert times == [f"<|{n / 50:.2f}|>" for n in range(LAST_TIMESTAMP + 1)]
    assert times[-1] == "<|30.00|>"
    added = tokenizer.added_tokens_decoder
    kinds = {added[token].special for token in range(IDS.timestamps, VOCAB_SIZE)}
    assert kinds == {False}, "skipping special tokens keeps the times"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (IDS.end, IDS.end)
    assert tokenizer.prefix_tokens == [IDS.start, IDS.english, IDS.transcribe, IDS.no_timestamps]


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60).filter(lambda text: "<|" not in text))
def test_any_text_comes_back(tokenizer: WhisperTokenizer, text: str) -> None:
    ids = text_ids(tokenizer, text)
    assert all(token < TEXT_TOKENS for token in ids), "text needs text tokens only"
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_special_tokens_are_left_out_and_timestamps_shown_when_asked_for(tokenizer: WhisperTokenizer) -> None:
    ids = [
        *(IDS.start, IDS.english, IDS.transcribe, IDS.timestamp(1.5)),
        *text_ids(tokenizer, " The fog came in."),
        *(IDS.timestamp(3.26), IDS.end),
    ]
    assert tokenizer.decode(ids, skip_special_tokens=True) == " The fog came in."
    shown = tokenizer.decode(ids, skip_special_tokens=True, decode_with_timestamps=True)
    assert shown == "<|1.50|> The fog came in.<|3.26|>"


texts = st.integers(0, 1000).map(lambda seed: f" {training_sentence(random.Random(seed))}")


@settings(max_examples=50, deadline=None)
@given(
    times=st.lists(st.integers(0, LAST_TIMESTAMP), min_size=2, max_size=12, unique=True).map(sorted),
    data=st.data(),
)
def test_transformers_reads_the_times_of_segments(
    tokenizer: WhisperTokenizer, times: list[int], data: st.DataObject
) -> None:
    expected = [
        {"text": data.draw(texts), "timestamp": (first * TIMESTAMP_STEP_S, last * TIMESTAMP_STEP_S)}
        for first, last in zip(times[::2], times[1::2], strict=False)
    ]
    ids = []
    for segment in expected:
        first, last = (IDS.timestamp(seconds) for seconds in segment["timestamp"])
        ids += [first, *text_ids(tokenizer, segment["text"]), last]
    offsets = tokenizer.decode([*ids, IDS.end], output_offsets=True)["offsets"]
    assert [offset["text"] for offset in offsets] == [segment["text"] for segment in expected]
    for offset, segment in zip(offsets, expected, strict=True):
        assert offset["timestamp"] == pytest.approx(segment["timestamp"], abs=1e-6)


@pytest.mark.parametrize(
    "seconds, token", [(-1, 0), (0, 0), (0.011, 1), (0.031, 2), (29.999, 1500), (30, 1500), (31, 1500)]
)
def test_a_timestamp_is_rounded_and_held_to_the_window(seconds: float, token: int) -> None:
    assert IDS.timestamp(seconds) == IDS.timestamps + token


def test_the_same_text_trains_the_same_tokenizer(trained: WhisperTokenizer) -> None:
    rng = random.Random(0)
    again = train_tokenizer(training_sentence(rng) for _ in range(10_000))
    assert again.backend_tokenizer.to_str() == trained.backend_tokenizer.to_str()


def test_a_saved_tokenizer_is_the_same(trained: WhisperTokenizer, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, WhisperTokenizer)
    assert loaded.get_vocab() == trained.get_vocab()
    line = " She counted seven ships before the fog came in."
    assert loaded(line).input_ids == trained(line).input_ids


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match="too little of it"):
        train_tokenizer(["The fog came in."])
