"""Training text is seeded, clean, complete, apart from the evaluation's, and unmistakable to the ear."""

from __future__ import annotations

import ctypes
import multiprocessing
import random
import re
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise

import pytest

from experiments.train import text, vocabulary
from tests.experiments.conftest import CLIPS

VOICES = "en en-US en-US-nyc en-GB-x-rp en-GB-scotland en-GB-x-gbclan en-GB-x-gbcwmd en-029"
WORD = re.compile(r"[A-Za-z']+|\d+")


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    rng = random.Random(20)
    return [text.sentence(rng) for _ in range(20_000)]


def test_sentences_look_like_whispers_output(sentences: list[str]) -> None:
    shape = re.compile(r"[A-Z0-9][A-Za-z']*\d*(,? [A-Za-z0-9']+)+[.?]")
    assert [line for line in sentences if not shape.fullmatch(line)] == []
    lengths = [len(line.split()) for line in sentences]
    assert min(lengths) == 3 and max(lengths) == text.LONGEST
    assert len(set(sentences)) > 0.97 * len(sentences)


def test_every_word_of_the_vocabulary_occurs_and_no_other(sentences: list[str]) -> None:
    counts = Counter(word for line in sentences for word in WORD.findall(line.lower()) if word[0].isalpha())
    assert set(counts) == set(text.vocabulary())
    assert min(counts.values()) >= 10
    assert 1200 <= len(text.vocabulary()) <= 1600


def test_vocabulary_holds_the_words_of_the_shipped_clips() -> None:
    spoken = " ".join(path.read_text() for path in CLIPS.glob("*.txt"))
    assert set(WORD.findall(spoken.lower())) <= set(text.vocabulary())


def test_a_seed_reproduces_its_sentences(sentences: list[str]) -> None:
    rng = random.Random(20)
    assert [text.sentence(rng) for _ in range(500)] == sentences[:500]
    assert text.sentence(random.Random(21)) != sentences[0]


def test_training_and_held_out_sentences_never_meet(sentences: list[str]) -> None:
    rng = random.Random(3)
    training = {text.training_sentence(rng) for _ in range(5000)}
    held_out = {text.held_out_sentence(rng) for _ in range(500)}
    assert not training & held_out
    assert not any(map(text.is_held_out, training)) and all(map(text.is_held_out, held_out))
    assert 1 / 70 < sum(map(text.is_held_out, sentences)) / len(sentences) < 1 / 35


def test_the_split_is_the_same_on_every_machine() -> None:
    assert [n for n in range(200) if text.is_held_out(f"Sail {n}.")] == [34, 137, 150, 175]


def test_numbers_are_digits_from_ten_on_and_never_touch(sentences: list[str]) -> None:
    for line in sentences:
        words = line.replace(",", "").rstrip(".?").split()
        for index, word in enumerate(words):
            if not word.isdigit():
                continue
            after = words[index + 1] if index + 1 < len(words) else ""
            small = after == "o'clock" or after in vocabulary.MONTH.split()
            assert int(word) in (range(1, 32) if small else (*range(10, 1000), *range(1800, 2031))), line
            assert not after.isdigit() and after not in ("and", "one", *vocabulary.COUNT.split()), line


def test_verbs_and_articles_agree(sentences: list[str]) -> None:
    classes = vocabulary.word_classes()
    plurals = set(classes["PERSONS"] + classes["THINGS"] + classes["COMPUTINGS"])
    grammatical = [
        line for line in sentences if line.startswith(("There are ", "There is ", "It's a", "That's a"))
    ]
    assert len(grammatical) > 50
    for line in grammatical:
        words = line.rstrip(".").lower().split()
        if words[:2] == ["there", "is"]:
            assert not plurals & set(words[2:5]), line
        for article, after in pairwise(words):
            if article in ("a", "an"):
                vowel = after[0] in "aeiou" and not after.startswith(("use", "euro"))
                assert article == ("an" if vowel or after in ("hour", "honest") else "a"), line


def _phonemes(spoken: list[str]) -> dict[str, dict[str, str]]:
    """What each of VOICES says for each text, without stress. The library has state: for an own process."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize(1, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
    said: dict[str, dict[str, str]] = {}
    for voice in VOICES.split():
        assert library.espeak_SetVoiceByName(f"gmw/{voice}".encode()) == 0, voice
        said[voice] = {
            line: re.sub(
                r"[',|_ ]", "", library.espeak_TextToPhonemes(ctypes.c_char_p(line.encode()), 1, 0).decode()
            )
            for line in spoken
        }
    return said


def test_no_voice_says_two_words_or_two_numbers_alike() -> None:
    pytest.importorskip("espeakng_loader")
    cased = {word for words in vocabulary.word_classes().values() for word in words}
    numbers = {number for column in text.NUMBERS.values() for number in column if int(number) > 9}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        said = pool.submit(_phonemes, sorted(cased | numbers)).result()
    for voice, phonemes in said.items():
        alike = defaultdict(set)
        for line, sound in phonemes.items():
            alike[sound].add(line)
        confusable = [lines - vocabulary.GRAMMAR_DECIDES for lines in alike.values() if len(lines) > 1]
        assert not any(confusable), (voice, confusable)
