"""Speech for training: sane sound, the same every time, from voices and sentences kept apart."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train import corpus
from experiments.train.corpus import SEGMENTS_PER_SPEAKER, Pool, make_pool
from experiments.train.speech import ACCENTS, HELD_OUT_VARIANTS, TRAIN_VARIANTS, Speaker, Voice
from harness.errors import ExitCode, UserError
from tests.experiments.conftest import ROOT

TEXT = "She counted seven ships before the fog came in."
VOICE = Voice("en-us", "f3", rate_wpm=170, pitch=50, pitch_range=50, speed=1.0)
HOURS = 0.07  # two chunks


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(HOURS, seed=1, workers=1)


def test_a_sentence_is_sound_of_full_level_without_silence_at_its_ends() -> None:
    with Speaker() as speaker:
        samples = speaker.say(TEXT, VOICE)
    assert samples.dtype == np.int16
    assert 2 < len(samples) / SAMPLE_RATE_HZ < 4  # nine words at 170 per minute take 3.2 s
    level = np.abs(samples.astype(np.int32))
    assert level.max() == round(10 ** (-3 / 20) * 32768)
    heard = np.flatnonzero(level > level.max() / 100)
    assert heard[0] < 0.05 * SAMPLE_RATE_HZ
    assert len(samples) - heard[-1] < 0.05 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("change", [{"rate_wpm": 210}, {"speed": 1.08}])
def test_faster_voices_take_less_time(change: dict[str, float]) -> None:
    with Speaker() as speaker:
        assert len(speaker.say(TEXT, replace(VOICE, **change))) < 0.96 * len(speaker.say(TEXT, VOICE))


def test_speech_depends_on_the_voice_and_what_it_said_before_only() -> None:
    with Speaker() as speaker:
        first = [speaker.say(TEXT, VOICE) for _ in range(2)]
        speaker.say("Something else.", replace(VOICE, accent="en", variant="Alicia"))
        again = [speaker.say(TEXT, VOICE) for _ in range(2)]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    program = (
        "import sys, zlib; from tests.experiments.test_train_speech import Speaker, TEXT, VOICE\n"
        "with Speaker() as speaker: sys.stdout.buffer.write(speaker.say(TEXT, VOICE).tobytes())"
    )
    fresh = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    np.testing.assert_array_equal(first[0], np.frombuffer(fresh.stdout, np.int16))


def test_every_accent_and_variant_is_there_and_differs() -> None:
    assert not set(TRAIN_VARIANTS) & set(HELD_OUT_VARIANTS)
    with Speaker() as speaker:
        accents = {speaker.say(TEXT, replace(VOICE, accent=accent)).tobytes() for accent in ACCENTS}
        variants = {
            speaker.say("Fog.", replace(VOICE, variant=variant)).tobytes()
            for variant in TRAIN_VARIANTS + HELD_OUT_VARIANTS
        }
    assert len(accents) == len(ACCENTS)
    assert len(variants) == len(TRAIN_VARIANTS) + len(HELD_OUT_VARIANTS)


@pytest.mark.parametrize(
    "change, text, found",
    [
        ({"variant": "nobody"}, TEXT, "no variant 'nobody'"),
        ({"accent": "en-gb-x-moon"}, TEXT, "no accent 'en-gb-x-moon'"),
        ({}, " ... ", "nothing to speak"),
    ],
)
def test_what_espeak_cannot_say_is_refused(change: dict[str, str], text: str, found: str) -> None:
    with Speaker() as speaker:
        with pytest.raises(UserError, match=found):
            speaker.say(text, replace(VOICE, **change))
        assert len(speaker.say(TEXT, VOICE))  # and it speaks on


def test_data_in_a_path_that_espeak_would_cut_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("d" * 160)
    long.symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(long))
    with Speaker() as speaker, pytest.raises(UserError, match=r"path of \d+ bytes"):
        speaker.say(TEXT, VOICE)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "none.so"))
    with Speaker() as speaker, pytest.raises(UserError, match=r"can't be loaded.*none\.so") as error:
        speaker.say(TEXT, VOICE)
    assert "espeakng-loader" in error.value.hint
    assert error.value.exit_code == ExitCode.INPUT


def test_a_pool_lies_end_to_end_speaker_after_speaker(pool: Pool) -> None:
    assert pool.hours == pytest.approx(HOURS, abs=8 / 3600)
    assert pool.hours <= HOURS
    assert len(pool.texts) == len(pool.starts) == len(pool.lengths) == len(pool.speakers)
    np.testing.assert_array_equal(pool.starts[1:], np.cumsum(pool.lengths)[:-1])
    assert pool.starts[0] == 0
    assert pool.lengths.sum() == len(pool.samples)
    seconds = pool.lengths / SAMPLE_RATE_HZ
    assert 0.3 < seconds.min() < seconds.max() < 9
    assert (pool.samples.dtype, pool.speakers.dtype) == (np.int16, np.int32)
    speakers, counts = np.unique(pool.speakers, return_counts=True)
    assert (np.diff(pool.speakers) >= 0).all()
    assert (speakers == np.arange(len(speakers))).all()
    assert (counts[:-1] == SEGMENTS_PER_SPEAKER).all()


def test_a_pool_does_not_depend_on_the_number_of_workers(pool: Pool) -> None:
    done: list[float] = []
    other = make_pool(HOURS, seed=1, workers=2, on_progress=done.append)
    assert other.texts == pool.texts
    for name in ("samples", "starts", "lengths", "speakers"):
        np.testing.assert_array_equal(getattr(other, name), getattr(pool, name))
    assert done == sorted(done)
    assert done[-1] == pool.hours
    assert len(done) > 1


def test_held_out_speech_has_its_own_voices_and_sentences(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: set[str] = set()

    class Noting(Speaker):
        def say(self, text: str, voice: Voice) -> np.ndarray:
            heard.add(voice.variant)
            return np.zeros(1, np.int16)

    monkeypatch.setattr(corpus, "Speaker", Noting)
    texts = [text for index in range(8) for text in corpus._make_chunk(1, index, held_out=True).texts]
    assert len(heard) > 5
    assert heard <= set(HELD_OUT_VARIANTS)
    assert not set(texts) & set(pool.texts)
    heard.clear()
    corpus._make_chunk(1, 0, held_out=False)
    assert heard <= set(TRAIN_VARIANTS)


def test_hours_that_no_memory_holds_are_refused() -> None:
    with pytest.raises(UserError, match="GB of memory"):
        make_pool(1e9, seed=1, workers=1)
