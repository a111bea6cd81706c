"""Error rates are those counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from omegaconf import DictConfig

from experiments import audio
from experiments.transcription import build, check, inputs
from experiments.word_errors import LINES, LISTED, Pair, count_errors, of_transcripts
from harness.errors import ExitCode, UserError
from tests.experiments.bad_sound import tone


def heard(source: str, text: str | None, reference: str | None, window: int = 0) -> dict[str, Any]:
    return {"source": source, "window": window, "text": text, "reference": reference}


# (hypothesis, reference) pairs; substitutions, deletions, insertions, words; wrong characters, characters
BY_HAND: dict[str, tuple[list[Pair], tuple[int, int, int, int], tuple[int, int]]] = {
    "nothing wrong": ([("seven ships sail", "seven ships sail")], (0, 0, 0, 3), (0, 16)),
    "a substitution": ([("seven shops sail", "seven ships sail")], (1, 0, 0, 3), (1, 16)),
    "a deletion": ([("seven sail", "seven ships sail")], (0, 1, 0, 3), (6, 16)),
    "an insertion": ([("seven big ships sail", "seven ships sail")], (0, 0, 1, 3), (4, 16)),
    "one of each": (
        [("a cat sat up on mat", "the cat sat on the mat")],
        (1, 1, 1, 6),
        (8, 22),
    ),  # 3 for "a", 5 for "up on"
    "nothing heard": ([("", "seven ships")], (0, 2, 0, 2), (11, 11)),
    "more wrong than there is": ([("a b c d", "x")], (1, 0, 3, 1), (7, 1)),
    "clips weigh by their words": ([("b", "a"), ("c d e", "c d e")], (1, 0, 0, 4), (1, 6)),
    "an empty reference": ([("thank you", ""), ("go on", "go on")], (0, 0, 2, 2), (9, 5)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_counts_are_those_made_by_hand(case: str) -> None:
    pairs, (substitutions, deletions, insertions, words), (wrong, characters) = BY_HAND[case]
    found = count_errors(pairs)
    assert (found.substitutions, found.deletions, found.insertions) == (substitutions, deletions, insertions)
    assert (found.words, found.characters) == (words, characters)
    assert found.wer == pytest.approx((substitutions + deletions + insertions) / words)
    assert found.cer == pytest.approx(wrong / characters)


@pytest.mark.parametrize("pairs", [[], [("", "")], [("thank you", ""), ("", "")]])
def test_over_no_words_there_is_no_rate(pairs: list[Pair]) -> None:
    found = count_errors(pairs)
    assert found.wer is None and found.cer is None and found.words == 0
    assert found.insertions == sum(len(hypothesis.split()) for hypothesis, _ in pairs)


def test_case_punctuation_and_numerals_are_no_errors_in_english() -> None:
    window = heard("a.wav", "it's 27 pounds; mr. smith", "It is twenty-seven pounds, Mister Smith!")
    found = of_transcripts([window], "en")
    assert (found["wer"], found["normalizer"], found["library"]) == (0, "EnglishTextNormalizer", "jiwer")


def test_other_languages_have_the_basic_normaliser() -> None:
    windows = [heard("a.wav", "größe: 2!", "Größe 2"), heard("b.wav", "zwei", "2")]
    found = of_transcripts(windows, "de")
    assert found["normalizer"] == "BasicTextNormalizer"
    assert (found["substitutions"], found["words"]) == (1, 3), "numbers are left as they are spelt"


def test_windows_of_a_clip_are_joined_in_order() -> None:
    reference = "the quick brown fox jumps over the lazy dog"
    windows = [
        heard("b.flac", "lazy dog", reference, 2),
        heard("b.flac", "The quick brown fox", reference, 0),
        heard("a.flac", "at dawn", "at dawn"),
        heard("b.flac", "jumped over the", reference, 1),
    ]
    found = of_transcripts(windows, "en")
    assert (found["substitutions"], found["deletions"], found["insertions"]) == (1, 0, 0)
    assert (found["words"], found["clips"]) == (11, 2)
    (worst,) = found["worst"]
    assert (worst["source"], worst["errors"], worst["words"]) == ("b.flac", 1, 9)
    assert "jumps" in worst["alignment"] and "jumped" in worst["alignment"]


def test_clips_without_a_reference_are_left_out_and_counted() -> None:
    windows = [
        heard("a.wav", "at dawn", "at dawn"),
        heard("b.wav", "hello", None),
        heard("b.wav", "", None, 1),
    ]
    found = of_transcripts(windows, "en")
    assert (found["wer"], found["clips"], found["clips_without_reference"]) == (0, 1, 1)


@pytest.mark.parametrize(
    "windows, why",
    [
        ([heard("a.wav", "hello", None)], "no sound file has its words beside it"),
        ([heard("a.wav", None, "hello")], "random weights"),
        ([heard("a.wav", "thank you", "")], "words heard where there are none: 2"),
    ],
)
def test_where_there_is_no_rate_it_says_why(windows: list[dict[str, Any]], why: str) -> None:
    found = of_transcripts(windows, "en")
    assert found["wer"] is None and found["cer"] is None and why in found["why"]


def test_the_worst_clips_come_first_and_their_alignment_shows_errors_only() -> None:
    words = [f"word{'abcdefghij'[n // 10 % 10]}{'abcdefghij'[n % 10]}" for n in range(100)]
    wrong = ["wrong" if n % 10 == 0 else word for n, word in enumerate(words)]
    once = ["wrong", *words[1:]]
    windows = [heard(f"{n}.wav", "wrong", "right") for n in range(LISTED)]
    windows += [heard("many.wav", " ".join(wrong), " ".join(words))]
    windows += [heard("once.wav", " ".join(once[:30]), " ".join(words[:30]))]
    worst = of_transcripts(windows, "en")["worst"]
    assert [clip["errors"] for clip in worst] == [10, *[1] * (LISTED - 1)]
    many = worst[0]["alignment"].splitlines()
    assert [line[:5] for line in many[: 3 * LINES : 3]] == ["REF: "] * LINES
    assert len(many) == 3 * LINES + 1 and many[-1].endswith("more lines with errors")
    (line,) = (clip["alignment"] for clip in of_transcripts(windows[-1:], "en")["worst"])
    assert line.startswith("REF: wordaa wordab") and len(line.splitlines()) == 3


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "long.wav", tone(31.0), 16_000)
    (tmp_path / "long.txt").write_text("\ufeffA long tone.\n", encoding="utf-8")
    return tmp_path / "long.wav"


def test_each_window_of_a_long_clip_carries_its_reference(
    configure: Callable[..., DictConfig], long_clip: Path
) -> None:
    work = build(configure("baseline", f"audio.path={long_clip}"), "cpu")
    windows = work.transcripts()
    assert [(t["window"], t["reference"]) for t in windows] == [(0, "A long tone."), (1, "A long tone.")]
    found = work.word_errors(windows)
    assert found["wer"] is None and "random weights" in found["why"]


def test_other_references_are_other_inputs(configure: Callable[..., DictConfig], long_clip: Path) -> None:
    cfg = configure("baseline", f"audio.path={long_clip}")
    before = inputs(cfg)
    long_clip.with_suffix(".txt").write_text("A tone.")
    assert inputs(cfg) != before


def test_a_reference_that_is_not_utf_8_is_refused(
    configure: Callable[..., DictConfig], long_clip: Path
) -> None:
    long_clip.with_suffix(".txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(UserError, match=r"long\.txt is not text in UTF-8") as caught:
        check(configure("baseline", f"audio.path={long_clip}"))
    assert caught.value.exit_code == ExitCode.INPUT
    long_clip.with_suffix(".txt").unlink()
    assert audio.reference(long_clip) is None
