"""When each word is said: from where the decoder's cross-attention listens while it writes the word.

The best monotonic path through the attention of the text tokens over the frames of the window (dynamic time
warping) says when each token begins, as openai-whisper's timing.py has it. Segment times, where the model
gives them, are the better ones: words are held between those of their segment.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from experiments.transcribe.results import Word

FRAME_S = 0.02  # of the encoder's output
OPENING = "\"'“¿([{-"
REPLACEMENT = "\ufffd"  # what a tokenizer writes for a part of a character


def token_starts(alignment: np.ndarray) -> np.ndarray:
    """Seconds at which each token begins, float64 [tokens]; alignment: float32 [tokens, frames]."""
    rows, frames = _compiled()(-alignment.astype(np.float64))
    first = np.r_[True, np.diff(rows) > 0]
    return frames[first] * FRAME_S


def words(
    tokens: Sequence[int],
    starts: np.ndarray,
    probabilities: np.ndarray,
    text: Callable[[list[int]], str],
    span: tuple[float, float],
) -> list[Word]:
    """The words of one segment, their times held inside `span`, the segment's first and last second.

    tokens: its n text tokens; starts: [n + 1], of each token and of what follows the last, seconds;
    probabilities: [n]; text: what tokens say. Tokens that are part of a character stay together.
    """
    found = []
    for first, last in _groups(tokens, text):
        begin, end = np.clip([starts[first], starts[last]], *span)
        probability = float(np.mean(probabilities[first:last]))
        found.append(
            Word(text(list(tokens[first:last])), round(begin, 3), round(end, 3), round(probability, 4))
        )
    return found


def _groups(tokens: Sequence[int], text: Callable[[list[int]], str]) -> list[tuple[int, int]]:
    """First and last + 1 of the tokens of each word: a word begins with a space, closing marks belong to it.

    Writings without spaces (Chinese, Japanese, Thai) come out as one word for each stretch between spaces or
    marks.
    """
    groups: list[tuple[int, int]] = []
    first = 0
    for last in range(1, len(tokens) + 1):
        said = text(list(tokens[first:last]))
        if REPLACEMENT in said and last < len(tokens):
            continue
        bare = said.strip()
        begins = said.startswith(" ") and (bare in OPENING or bare not in string.punctuation)
        after_opening = bool(groups) and text(list(tokens[slice(*groups[-1])])).strip() in OPENING
        if not groups or (begins and not after_opening):
            groups.append((first, last))
        else:
            groups[-1] = (groups[-1][0], last)
        first = last
    return groups


@lru_cache
def _compiled() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    import numba  # takes as long as everything else here together

    return numba.njit(_path, nogil=True, cache=True)


def _path(cost: Any) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest way from the first row and column to the last, one step down, right or both at a time."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((rows + 1, columns + 1), np.int8)  # where the way came from: 0 both, 1 down, 2 right
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            both, down, right = total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]
            best, came = both, 0
            if down < best:
                best, came = down, 1
            if right < best:
                best, came = right, 2
            total[row, column] = cost[row - 1, column - 1] + best
            step[row, column] = came
    row, column, length = rows, columns, 0
    path_rows, path_columns = np.empty(rows + columns, np.int64), np.empty(rows + columns, np.int64)
    while row > 0 and column > 0:
        path_rows[length], path_columns[length] = row - 1, column - 1
        length += 1
        came = step[row, column]
        if came != 2:
            row -= 1
        if came != 1:
            column -= 1
    return path_rows[:length][::-1], path_columns[:length][::-1]
