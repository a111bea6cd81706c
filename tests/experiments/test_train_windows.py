"""What a window's decoder is given and has to answer is what is in the window's sound."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train.corpus import Pool
from experiments.train.pieces import _tokenize
from experiments.train.recipe import RECIPES, Stage
from experiments.train.text import training_sentence
from experiments.train.tokens import TIMESTAMP_STEP_S, Ids
from experiments.train.windows import IGNORED, PROMPT_TOKENS, Batch, Windows
from tests.experiments.conftest import ROOT

IDS = Ids()
ROOM = 2000  # tokens: whatever is said fits


def made_up_pool(count: int, shortest_s: float, longest_s: float, seed: int) -> Pool:
    """Sentences spoken in white noise."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    lengths = [round(rng.uniform(shortest_s, longest_s) * SAMPLE_RATE_HZ) for _ in range(count)]
    return Pool(
        samples=noise.integers(-3000, 3000, sum(lengths), np.int16),
        starts=np.cumsum([0, *lengths[:-1]]),
        lengths=np.array(lengths),
        texts=[training_sentence(rng) for _ in range(count)],
        speakers=np.zeros(count, np.int32),
    )


@dataclass(frozen=True)
class Row:
    """One window of a batch, read back from its arrays. heard: (index in the pool, first sample, gain)."""

    given: list[int]
    answers: list[int]
    scored: list[bool]
    heard: list[tuple[int, int, float]]
    end: int

    @property
    def start(self) -> int:
        """Where the start token is: 0, or behind the prompt."""
        return self.given.index(IDS.start)

    @property
    def has_timestamps(self) -> bool:
        return IDS.no_timestamps not in self.given

    @property
    def content(self) -> list[int]:
        """What is to be written, with the end token."""
        return [token for token, scored in zip(self.answers, self.scored, strict=True) if scored][1:]


class Library:
    """A pool, its tokenizer and its windows."""

    def __init__(self) -> None:
        self.pool = made_up_pool(300, 0.8, 9.0, seed=3)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            ROOT / "experiments/checkpoint"
        )
        self.windows = Windows(self.pool, _tokenize(self.pool, self.tokenizer))

    def batch(
        self, seed: int, window_s: float, prompted: float, batch: int = 16, tokens: int = ROOM
    ) -> Batch:
        stage = Stage("made up", window_s, batch, steps=1, tokens=tokens, ctc=(0, 0), prompted=prompted)
        return self.windows.batch(random.Random(seed), stage)

    def rows(self, batch: Batch) -> list[Row]:
        index_at = {start: index for index, start in enumerate(self.pool.starts.tolist())}
        rows = []
        for n in range(len(batch.ids)):
            count = int((batch.length[n] > 0).sum())
            assert not batch.length[n, count:].any(), "what is padded is behind"
            heard = list(
                zip(
                    (index_at[start] for start in batch.source[n, :count].tolist()),
                    batch.start[n, :count].tolist(),
                    batch.gain[n, :count].tolist(),
                    strict=True,
                )
            )
            scored = batch.targets[n] != IGNORED
            used = int(np.flatnonzero(scored)[-1]) + 1
            assert (batch.ids[n, used:] == IDS.end).all()
            rows.append(
                Row(
                    batch.ids[n, :used].tolist(),
                    batch.targets[n, :used].tolist(),
                    scored[:used].tolist(),
                    heard,
                    int(batch.end[n]),
                )
            )
        return rows

    def last_sample(self, index: int, start: int) -> int:
        return start + int(self.pool.lengths[index])


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


any_batch = given(
    seed=st.integers(0, 2**32),
    window_s=st.sampled_from([4.0, 10.0, 30.0]),
    prompted=st.sampled_from([0.0, 0.4, 1.0]),
)
few = settings(max_examples=25, deadline=None)


@few
@any_batch
def test_inputs_and_answers_are_one_sequence_shifted_by_one(
    library: Library, seed: int, window_s: float, prompted: float
) -> None:
    for row in library.rows(library.batch(seed, window_s, prompted)):
        start, task = row.start, 3 if row.has_timestamps else 4
        assert (
            row.given[start : start + task]
            == [IDS.start, IDS.english, IDS.transcribe, IDS.no_timestamps][:task]
        )
        expected = [n == start or n >= start + task - 1 for n in range(len(row.given))]
        assert row.scored == expected, "prompt and task are given, not asked for"
        assert row.answers[start] == (IDS.english if row.heard else IDS.no_speech)
        assert row.answers[start + task - 1 : -1] == row.given[start + task :]
        assert row.answers[-1] == IDS.end
        assert not {IDS.transcribe, IDS.no_timestamps, IDS.previous, IDS.start} & set(row.answers)


@few
@any_batch
def test_what_is_asked_for_is_what_is_heard(
    library: Library, seed: int, window_s: float, prompted: float
) -> None:
    pool, samples = library.pool, round(window_s * SAMPLE_RATE_HZ)
    for row in library.rows(library.batch(seed, window_s, prompted)):
        indices = [index for index, _, _ in row.heard]
        assert indices == list(range(indices[0], indices[-1] + 1)) if indices else True, "one after another"
        whole = [(n, at) for n, at, _ in row.heard if library.last_sample(n, at) <= samples]
        cut = [(n, at) for n, at, _ in row.heard if library.last_sample(n, at) > samples]
        assert cut in ([], [(n, at) for n, at, _ in row.heard[-1:]])
        if not row.has_timestamps:
            assert not cut
            assert all(token < IDS.end for token in row.content[:-1]), "text and nothing else"
            text = library.tokenizer.decode(row.content[:-1])
            assert text == "".join(f" {pool.texts[index]}" for index, _ in whole)
            continue
        offsets = library.tokenizer.decode(row.content, output_offsets=True)["offsets"]
        assert [offset["text"] for offset in offsets] == [f" {pool.texts[index]}" for index, _ in whole]
        for (index, at), offset in zip(whole, offsets, strict=True):
            seconds = np.array([at, library.last_sample(index, at)]) / SAMPLE_RATE_HZ
            np.testing.assert_allclose(offset["timestamp"], seconds, atol=TIMESTAMP_STEP_S)
        if row.heard:
            times = [token for token in row.content if token >= IDS.timestamps]
            assert times == sorted(times)
            assert len(times) == 2 * len(whole) + len(cut)
        if cut:
            (_, at) = cut[0]
            last = row.content[-2]
            assert (last - IDS.timestamps) * TIMESTAMP_STEP_S == pytest.approx(
                at / SAMPLE_RATE_HZ, abs=TIMESTAMP_STEP_S
            )


@few
@any_batch
def test_segments_lie_in_the_window_without_touching(
    library: Library, seed: int, window_s: float, prompted: float
) -> None:
    samples = round(window_s * SAMPLE_RATE_HZ)
    for row in library.rows(library.batch(seed, window_s, prompted)):
        at = 0
        for index, start, gain in row.heard:
            assert at < start < samples, "a pause before each"
            assert 10 ** (-6 / 20) <= gain <= 1.0
            at = library.last_sample(index, start)
        assert min(at, samples) <= row.end <= samples, "sound ends behind the last word"


def test_every_form_of_window_occurs(library: Library) -> None:
    rows = library.rows(library.batch(1, 30.0, prompted=0.4, batch=400))
    silent = [row for row in rows if not row.heard]
    cut = [row for row in rows if row.heard and library.last_sample(*row.heard[-1][:2]) > 30 * SAMPLE_RATE_HZ]
    short = [row for row in rows if row.end < 30 * SAMPLE_RATE_HZ]
    prompts = [row for row in rows if row.start]
    assert 4 <= len(silent) <= 40
    for row in silent:
        assert row.content == ([IDS.timestamps, IDS.end] if row.has_timestamps else [IDS.end])
    assert {row.has_timestamps for row in silent} == {True, False}
    assert 30 <= len(cut) <= 100 and all(row.has_timestamps for row in cut)
    assert len(short) >= 100
    assert 120 <= len(prompts) <= 200
    assert {any(t >= IDS.timestamps for t in row.given[: row.start]) for row in prompts} == {True, False}
    continued = 0
    for row in prompts:
        assert row.given[0] == IDS.previous
        assert row.start <= PROMPT_TOKENS + 1
        if row.heard and row.heard[0][0] > 0:
            before = f" {library.pool.texts[row.heard[0][0] - 1]}"
            prompt = [token for token in row.given[1 : row.start] if token < IDS.end]
            continued += library.tokenizer.decode(prompt).endswith(before)
    assert 0.8 * len(prompts) < continued < len(prompts), "most prompts are the text before, some are not"


def test_ctc_is_taught_whole_windows_only(library: Library) -> None:
    batch = library.batch(2, 30.0, prompted=0.4, batch=100)
    for n, row in enumerate(library.rows(batch)):
        whole = [i for i, at, _ in row.heard if library.last_sample(i, at) <= 30 * SAMPLE_RATE_HZ]
        assert batch.ctc_counts[n] == (bool(whole) and len(whole) == len(row.heard))
        text = library.tokenizer.decode(batch.ctc[n, : batch.ctc_length[n]].tolist())
        assert text == "".join(f" {library.pool.texts[index]}" for index in whole)
        assert not batch.ctc[n, batch.ctc_length[n] :].any()


@pytest.mark.parametrize("tokens", [8, 40])
def test_rows_have_the_tokens_of_the_stage_and_no_more(library: Library, tokens: int) -> None:
    longer = library.batch(5, 30.0, prompted=0.4)
    batch = library.batch(5, 30.0, prompted=0.4, tokens=tokens)
    assert batch.ids.shape == batch.targets.shape == (16, tokens)
    np.testing.assert_array_equal(batch.ids, longer.ids[:, :tokens])
    np.testing.assert_array_equal(batch.targets, longer.targets[:, :tokens])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_seed_gives_the_same_batch_and_the_next_seed_another(library: Library, recipe: str) -> None:
    for stage in RECIPES[recipe].stages:
        one, same, other = (
            library.windows.batch(random.Random(seed), stage) for seed in ("0 7", "0 7", "0 8")
        )
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert not np.array_equal(one.end, other.end) or not np.array_equal(one.ids, other.ids)
