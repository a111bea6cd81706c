"""Hypotheses and token comparisons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.verdict import compare_tokens, judge, tokens_sentence

TOKENS = st.lists(st.integers(0, 3), max_size=6)


def transcript(tokens: list[int], window: int = 0) -> dict[str, object]:
    margins = [0.25 * n for n in range(len(tokens))]
    return {"source": "a.wav", "window": window, "tokens": tokens, "margins": margins}


@pytest.mark.parametrize(
    ("bound", "value", "held"),
    [("at_most", 0.1, True), ("at_most", 0.11, False), ("at_least", 0.1, True), ("at_least", 0.09, False)],
)
def test_bounds_include_their_ends(bound: str, value: float, held: bool) -> None:
    (row,) = judge([{"metric": "decode.idle_share", bound: 0.1}], {"decode.idle_share": value}, "cuda")
    assert row["held"] is held and row["value"] == value
    assert row["expect"] == f"{bound.replace('_', ' ')} 10.0%"


def test_a_metric_that_was_not_measured_decides_nothing() -> None:
    (row,) = judge([{"metric": "decode.idle_share", "at_most": 0.1}], {}, "cuda")
    assert row["held"] is None and "no such metric" in row["why"]


def test_a_cpu_decides_nothing_about_a_gpu_but_shows_what_was_recorded() -> None:
    expect = [{"metric": "ms_per_token", "at_most": 1.0}, {"metric": "tokens", "at_least": 5}]
    recorded = {"note": "recorded on NVIDIA H200, 2026-11-22, 1a2b3c4", "metrics": {"ms_per_token": 0.73}}
    time, count = judge(expect, {"ms_per_token": 0.5, "tokens": 7}, "cpu", recorded)
    assert time["held"] is None and time["value"] is None
    assert time["why"] == f"not measurable here; {recorded['note']}: held (0.73 ms)"
    assert count["held"] is True, "a count is the same on any machine"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_misspelt_metric_is_told_from_one_that_can_not_be_measured(device: str) -> None:
    known = {"decode.idle_share": 0.1, "encode_ms": 2.0}
    recorded = {"note": "recorded", "metrics": known}
    expect = [{"metric": name, "at_most": 0.2} for name in ("decode.idel_share", "encode.waves")]
    misspelt, absent = judge(expect, known if device == "cuda" else {}, device, recorded)
    assert misspelt["why"].endswith("no such metric (nearest: decode.idle_share)")
    assert absent["why"].endswith("no such metric")


def test_error_rates_and_agreement_are_judged_on_any_device() -> None:
    expect = [{"metric": "wer", "at_most": 0.05}, {"metric": "token_agreement", "at_least": 0.99}]
    words, tokens = judge(expect, {"wer": 0.0625, "token_agreement": 0.995}, "cpu")
    assert words["held"] is False and words["expect"] == "at most 5.00%"
    assert tokens["held"] is True and tokens["expect"] == "at least 99.00%"
    (undefined,) = judge(expect[:1], {}, "cpu")
    assert undefined["held"] is None


@given(TOKENS, TOKENS)
def test_tokens_are_identical_or_differ_at_the_first_difference(a: list[int], b: list[int]) -> None:
    match = compare_tokens([transcript([1]), transcript(a, 1)], [transcript([1]), transcript(b, 1)], "x/1")
    assert match["identical"] == (a == b)
    if a != b:
        at = match["first_difference"]["position"]
        assert a[:at] == b[:at] and a[at : at + 1] != b[at : at + 1]
        assert match["first_difference"]["window"] == 1
    assert match["agreement"] == 1 if a == b else match["agreement"] < 1


def test_agreement_is_over_the_positions_of_all_windows() -> None:
    mine = [transcript([1, 2, 3, 4]), transcript([1, 2], 1), transcript([7], 2)]
    theirs = [transcript([1, 9, 3, 4]), transcript([1, 2, 3, 4], 1), transcript([8], 2)]
    match = compare_tokens(mine, theirs, "baseline/1")
    # Of 4 + 4 + 1 positions equal: 3 (one differs), 2 (two are on one side only) and none.
    assert (match["positions"], match["agreement"]) == (9, 5 / 9)
    assert "55.56% of 9 positions hold the same token" in tokens_sentence("baseline", match)


def test_the_sentence_names_the_place_and_the_margin() -> None:
    match = compare_tokens([transcript([1, 2, 3])], [transcript([1, 2, 4])], "baseline/1")
    sentence = tokens_sentence("baseline", match)
    assert "baseline/1" in sentence and "position 2" in sentence and "margin there: 0.5" in sentence
    assert match["first_difference"]["tokens"] == [3, 4], "its own, then those of the run compared with"


def test_other_windows_are_not_compared() -> None:
    match = compare_tokens([transcript([1])], [transcript([1]), transcript([1], 1)], "baseline/1")
    assert match["agreement"] is None
    assert match["identical"] is False and "different windows" in tokens_sentence("baseline", match)
