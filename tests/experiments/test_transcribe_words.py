"""Words and when they are said."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.transcribe.words import _path, token_starts, words

TEXTS = {1: " He", 2: "llo", 3: ",", 4: " wor", 5: "ld", 6: "!", 7: " (", 8: "a", 9: ")", 10: " ", 11: "-"}


def text(tokens: list[int]) -> str:
    return "".join(TEXTS[token] for token in tokens)


def spoken(tokens: list[int], span: tuple[float, float] = (0, 100)) -> list[tuple[str, float, float]]:
    starts, sure = np.arange(len(tokens) + 1.0), np.full(len(tokens), 0.5)
    found = words(tokens, starts, sure, text, span)
    return [(word.text, word.start, word.end) for word in found]


def test_tokens_are_joined_to_words_with_their_punctuation() -> None:
    assert spoken([1, 2, 3, 4, 5, 6]) == [(" Hello,", 0, 3), (" world!", 3, 6)]
    assert [word for word, *_ in spoken([1, 7, 8, 9, 4, 5])] == [" He", " (a)", " world"]
    assert spoken([]) == []


def test_words_are_held_between_the_ends_of_their_segment() -> None:
    assert spoken([1, 2, 4, 5], (1.0, 2.5)) == [(" Hello", 1.0, 2.0), (" world", 2.0, 2.5)]


def test_parts_of_a_character_stay_together() -> None:
    pieces = {1: b" \xe4\xb8", 2: b"\xad", 3: b" a"}

    def decode(tokens: list[int]) -> str:
        return b"".join(pieces[token] for token in tokens).decode(errors="replace")

    found = words([1, 2, 3], np.arange(4.0), np.array([1.0, 0.5, 1.0]), decode, (0, 9))
    assert [(word.text, word.start, word.end) for word in found] == [(" 中", 0, 2), (" a", 2, 3)]
    assert found[0].probability == 0.75


def test_a_token_starts_where_its_attention_does() -> None:
    alignment = np.full((4, 50), -1.0, np.float32)
    for token, (begin, end) in enumerate([(0, 10), (10, 12), (12, 40), (40, 50)]):
        alignment[token, begin:end] = 1.0
    assert token_starts(alignment) == pytest.approx([0.0, 0.2, 0.24, 0.8])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 1000))
def test_the_path_is_the_cheapest(rows: int, columns: int, seed: int) -> None:
    cost = np.random.default_rng(seed).normal(size=(rows, columns))
    downs, rights = _path(cost)
    assert (downs[0], rights[0], downs[-1], rights[-1]) == (0, 0, rows - 1, columns - 1)
    steps = {(int(c - a), int(d - b)) for (a, b), (c, d) in pairwise(zip(downs, rights, strict=True))}
    assert steps <= {(1, 1), (1, 0), (0, 1)}
    best = np.full((rows, columns), np.inf)
    for r in range(rows):
        for c in range(columns):
            before = [best[r - 1, c - 1]] if r and c else []
            before += [best[r - 1, c]] if r else []
            before += [best[r, c - 1]] if c else []
            best[r, c] = cost[r, c] + (min(before) if before else 0)
    assert cost[downs, rights].sum() == pytest.approx(best[-1, -1])
