"""Tokens of a window to segments, as openai-whisper cuts them."""

from __future__ import annotations

import pytest

from experiments.transcribe.segments import Pieces, split
from tests.experiments.scripted import BEGIN, at


def shown(found: Pieces) -> list[tuple[float, float, tuple[int, ...]]]:
    return [
        (round(p.start, 2), round(p.end, 2), tuple(t for t in p.tokens if t < BEGIN)) for p in found.pieces
    ]


def test_pairs_of_timestamps_part_the_segments() -> None:
    found = split([at(0.4), 1, 2, at(2.0), at(2.5), 3, at(4.0)], BEGIN, 30.0)
    assert shown(found) == [(0.4, 2.0, (1, 2)), (2.5, 4.0, (3,))]
    assert found.accounted_s == 30.0, "a single timestamp at the end: nothing is said after it"
    assert found.ended_s == pytest.approx(4.0)


def test_text_that_the_window_cuts_is_left_to_the_next_window() -> None:
    found = split([at(0.4), 1, at(20.0), at(21.0), 2, 3], BEGIN, 30.0)
    assert shown(found) == [(0.4, 20.0, (1,))]
    assert found.accounted_s == pytest.approx(20.0)
    assert found.ended_s is None


def test_a_start_without_text_at_the_end_is_a_cut_too() -> None:
    found = split([at(0.4), 1, at(20.0), at(28.0)], BEGIN, 30.0)
    assert shown(found) == [(0.4, 20.0, (1,))]
    assert found.accounted_s == pytest.approx(20.0)


def test_without_a_pair_the_window_is_one_segment() -> None:
    assert shown(split([at(1.0), 1, 2], BEGIN, 12.0)) == [(1.0, 12.0, (1, 2))]
    one = split([at(1.0), 1, 2, at(3.0)], BEGIN, 12.0)
    assert shown(one) == [(1.0, 3.0, (1, 2))]
    assert (one.accounted_s, one.ended_s) == (12.0, pytest.approx(3.0))
    assert split([], BEGIN, 12.0) == Pieces((), 12.0)


def test_segments_stay_inside_the_sound_and_every_window_moves_on() -> None:
    assert shown(split([at(1.0), 1, at(29.0), at(29.5), 2, at(29.8)], BEGIN, 5.0)) == [
        (1.0, 5.0, (1,)),
        (5.0, 5.0, (2,)),
    ]
    assert split([at(0), 1, at(0), at(0), 2], BEGIN, 5.0).accounted_s == 5.0
    assert shown(split([at(3.0), 1, at(2.0), at(4.0), 2, at(5.0)], BEGIN, 30.0))[0] == (3.0, 3.0, (1,))
