"""PhaseClock: durations in call order, ranges that always close."""

from __future__ import annotations

import pytest

from harness import digest
from harness.phases import DECODE, DECODE_STEP, ENCODE, TOKENS, PhaseClock


class CountingTimer:
    """Each stamp is one nanosecond after the one before."""

    def __init__(self) -> None:
        self.now_ns = 0

    def stamp(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def resolve(self, pairs: list[tuple[int, int]]) -> list[int]:
        return [end - start for start, end in pairs]


class Ranges:
    """An annotator that keeps what it was told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []
        self.depth = 0

    def push(self, name: str, payload: int | None = None) -> None:
        self.seen.append((name, payload))
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1


@pytest.fixture
def ranges() -> Ranges:
    return Ranges()


@pytest.fixture
def clock(ranges: Ranges) -> PhaseClock:
    return PhaseClock(CountingTimer(), ranges)


def test_phases_nest_and_are_taken_once(clock: PhaseClock, ranges: Ranges) -> None:
    with clock.phase(ENCODE):
        pass
    with clock.phase(DECODE):
        for position in range(2):
            clock.begin(DECODE_STEP, payload=position)
            clock.end(DECODE_STEP)
    assert clock.take() == {ENCODE: [1], DECODE_STEP: [1, 1], DECODE: [5]}
    assert clock.take() == {}
    assert ranges.seen == [(ENCODE, None), (DECODE, None), (DECODE_STEP, 0), (DECODE_STEP, 1)]
    assert ranges.depth == 0


def test_an_error_closes_what_was_open_and_is_not_hidden(clock: PhaseClock, ranges: Ranges) -> None:
    with pytest.raises(RuntimeError, match="out of tokens"), clock.phase(DECODE):
        clock.begin(DECODE_STEP)
        raise RuntimeError("out of tokens")
    assert ranges.depth == 0
    assert clock.take() == {}, "a phase that failed has no duration"


def test_phases_that_cross_are_refused(clock: PhaseClock) -> None:
    clock.begin(DECODE)
    clock.begin(DECODE_STEP)
    with pytest.raises(ValueError, match=r"decode.*innermost open phase is 'decode\.step'"):
        clock.end(DECODE)
    with pytest.raises(ValueError, match="still open"):
        clock.take()


def test_what_a_trace_has_per_step_becomes_per_token_by_what_was_counted() -> None:
    """Rounds of a draft: 4 steps gave 10 tokens, in 2 decode phases of 25 bytes each."""
    one = {"phases": {DECODE: [8], DECODE_STEP: [4, 4]}, "counts": {TOKENS: 5}}
    child = {"iterations": [one, one]}
    traced = {"kernels_per_token": 350.0, "busy_ms_per_token.low": 1.0, "kernels": 1400.0}
    assert digest.by_token(traced, child) == {
        "kernels_per_token": 140.0, "busy_ms_per_token.low": 0.4, "kernels": 1400.0
    }  # fmt: skip
    assert digest.bytes_per_token({"decode.bytes_per_phase": 25.0}, child) == {"decode.bytes_per_token": 5.0}


def test_without_counted_tokens_or_steps_nothing_is_per_token_by_guess() -> None:
    traced = {"kernels_per_token": 350.0}
    uncounted = {"iterations": [{"phases": {DECODE: [8], DECODE_STEP: [4, 4]}}]}
    stepless = {"iterations": [{"phases": {DECODE: [8]}, "counts": {TOKENS: 5}}]}
    assert digest.by_token(traced, uncounted) == digest.by_token(traced, stepless) == traced
    for child in (uncounted, None):
        assert digest.bytes_per_token({"decode.bytes_per_phase": 25.0}, child) == {}
