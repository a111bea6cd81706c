"""The tokens of one window to segments, and to where the next window begins.

Behaviour: openai-whisper's transcribe.py. Two timestamps in a row end one segment and begin the next; a
single one at the end says that nothing is said after it; text behind the last pair was cut by the window's
end and is heard again in the next window.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

TIMESTAMP_STEP_S = 0.02  # between two timestamp tokens


@dataclass(frozen=True)
class Piece:
    """Tokens of one segment; start and end in seconds of the window."""

    start: float
    end: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Pieces:
    """The segments of a window. accounted_s: how many of its seconds they account for: the next window begins
    there. ended_s: where the last segment ends, if the model says that nothing is said between there and
    accounted_s, None if it does not say so."""

    pieces: tuple[Piece, ...]
    accounted_s: float
    ended_s: float | None = None


def split(tokens: Sequence[int], timestamp_begin: int, window_s: float) -> Pieces:
    """The segments of a window.

    tokens: without prompt and end token; timestamp_begin: id of <|0.00|>; window_s: how much of the window is
    sound.
    """
    if not tokens:
        return Pieces((), window_s)
    is_time = [token >= timestamp_begin for token in tokens]
    edges = [0] + [n for n in range(1, len(tokens)) if is_time[n - 1] and is_time[n]]
    ends_alone = is_time[-2:] == [False, True]
    if len(edges) == 1:
        piece = _open_ended(tokens, timestamp_begin, window_s)
        return Pieces((piece,), window_s, piece.end if ends_alone else None)
    if ends_alone:
        edges.append(len(tokens))
    pieces = tuple(_piece(tokens[a:b], timestamp_begin, window_s) for a, b in itertools.pairwise(edges))
    if ends_alone:
        return Pieces(pieces, window_s, pieces[-1].end)
    # A window whose last segment ends at 0 would be heard again and again.
    return Pieces(pieces, pieces[-1].end or window_s)


def text_tokens(tokens: Sequence[int], end: int) -> list[int]:
    """Those that are text: special tokens and timestamps have the end token's id or larger ones."""
    return [token for token in tokens if token < end]


def _piece(tokens: Sequence[int], begin: int, window_s: float) -> Piece:
    start = min(_seconds(tokens[0], begin), window_s) if tokens[0] >= begin else 0.0
    end = _seconds(tokens[-1], begin) if tokens[-1] >= begin else window_s
    return Piece(start, max(start, min(end, window_s)), tuple(tokens))


def _open_ended(tokens: Sequence[int], begin: int, window_s: float) -> Piece:
    """Without a pair all tokens are one segment, until the last timestamp or the window's end."""
    times = [_seconds(token, begin) for token in tokens if token >= begin]
    start = min(times[0], window_s) if times and tokens[0] >= begin else 0.0
    end = times[-1] if times and times[-1] > start else window_s
    return Piece(start, max(start, min(end, window_s)), tuple(tokens))


def _seconds(token: int, begin: int) -> float:
    return (token - begin) * TIMESTAMP_STEP_S
