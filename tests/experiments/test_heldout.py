"""The evaluation set: reproducible, and nothing of it was heard in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train import corpus, heldout
from experiments.train.corpus import SEGMENTS_PER_SPEAKER, SPEAKERS_PER_CHUNK
from experiments.train.heldout import CLIPS, CONDITIONS, SEED, HeldOutClip, make_clips
from experiments.train.speech import HELD_OUT_VARIANTS, Speaker, Voice
from experiments.train.text import is_held_out
from tests.experiments import conftest

FOLDER = conftest.CLIPS / "heldout"
TRUTH: dict[str, dict[str, Any]] = json.loads((FOLDER / "segments.json").read_text())


@pytest.fixture(scope="module")
def clips() -> list[HeldOutClip]:
    """One of each condition. A pool is the beginning of any larger one with its seed, so a small one does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heldout, "HOURS", 0.06)
        return make_clips(count=3)


def test_the_committed_clips_are_those_that_the_program_makes(clips: list[HeldOutClip]) -> None:
    for clip, (name, truth) in zip(clips, TRUTH.items(), strict=False):
        assert clip.condition == truth["condition"]
        assert [list(segment) for segment in clip.segments] == truth["segments"]
        samples, rate = soundfile.read(FOLDER / name, dtype="float32")
        assert rate == SAMPLE_RATE_HZ and len(samples) == len(clip.samples)
        assert np.corrcoef(samples, clip.samples)[0, 1] > 0.97, "the same but for what Vorbis loses"


def test_clips_hold_what_they_say(clips: list[HeldOutClip]) -> None:
    assert [clip.condition for clip in clips] == list(CONDITIONS)
    for clip in clips:
        assert clip.samples.dtype == np.float32 and np.isfinite(clip.samples).all()
        assert 0.5 < np.abs(clip.samples).max() <= 1
        seconds = np.arange(len(clip.samples)) / SAMPLE_RATE_HZ
        spoken = np.zeros(len(seconds), bool)
        for first, last, sentence in clip.segments:
            assert is_held_out(sentence)
            spoken |= (seconds >= first) & (seconds < last)
        speech, pauses = (np.sqrt(np.mean(clip.samples[part] ** 2)) for part in (spoken, ~spoken))
        assert speech > 2 * pauses, "the sound is where the segments are"


@pytest.mark.slow
def test_clips_do_not_depend_on_how_many_are_made(
    clips: list[HeldOutClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heldout, "HOURS", 0.1)
    for one, other in zip(make_clips(count=2), clips, strict=False):
        assert one.segments == other.segments
        np.testing.assert_array_equal(one.samples, other.samples)


def test_every_committed_voice_and_sentence_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus of the clips, made once more without its sound."""
    voices: list[Voice] = []

    class Noting(Speaker):
        def say(self, text: str, voice: Voice) -> np.ndarray:
            voices.append(voice)
            return np.zeros(1, np.int16)

    monkeypatch.setattr(corpus, "Speaker", Noting)
    chunks = range(CLIPS // SPEAKERS_PER_CHUNK)
    texts = [t for index in chunks for t in corpus._make_chunk(SEED, index, held_out=True).texts]
    for clip, truth in enumerate(TRUTH.values()):
        sentences = [sentence for _, _, sentence in truth["segments"]]
        first = clip * SEGMENTS_PER_SPEAKER
        assert texts[first : first + len(sentences)] == sentences
        assert all(map(is_held_out, sentences))
        assert {voice.variant for voice in voices[first : first + len(sentences)]} <= set(HELD_OUT_VARIANTS)
    assert len(set(voices)) == CLIPS, "each clip has a voice of its own"


def test_the_committed_clips_are_forty_of_5_to_30_s_in_3_mb() -> None:
    sounds = sorted(path.name for path in FOLDER.glob("*.ogg"))
    assert sounds == sorted(TRUTH) and len(sounds) == CLIPS == 40
    assert {path.suffix for path in FOLDER.iterdir()} == {".ogg", ".txt", ".json"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_000_000
    seconds = np.array([soundfile.info(FOLDER / name).duration for name in sounds])
    assert seconds.min() >= 5 and seconds.max() <= 30
    conditions = [truth["condition"] for truth in TRUTH.values()]
    assert min(conditions.count(condition) for condition in CONDITIONS) >= 13


@pytest.mark.parametrize("name", TRUTH)
def test_a_committed_clip_agrees_with_its_text_and_times(name: str) -> None:
    info = soundfile.info(FOLDER / name)
    assert (info.samplerate, info.channels) == (SAMPLE_RATE_HZ, 1)
    segments = TRUTH[name]["segments"]
    assert (FOLDER / name).with_suffix(".txt").read_text() == " ".join(s for _, _, s in segments) + "\n"
    times = [second for first, last, _ in segments for second in (first, last)]
    assert times == sorted(times) and len(set(times)) == len(times)
    assert times[0] > 0 and times[-1] <= info.duration
    assert name.endswith(f"_{TRUTH[name]['condition']}.ogg")


def test_they_are_written_with_text_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tone = 0.5 * np.sin(np.arange(SAMPLE_RATE_HZ) * 0.2).astype(np.float32)
    clip = HeldOutClip("noise", tone, [(0.1, 0.4, "Fog came in."), (0.5, 0.9, "Ships left.")])
    monkeypatch.setattr(heldout, "make_clips", lambda: [clip])
    heldout.write(tmp_path / "new")
    assert (tmp_path / "new/00_noise.txt").read_text() == "Fog came in. Ships left.\n"
    truth = json.loads((tmp_path / "new/segments.json").read_text())
    assert truth == {"00_noise.ogg": {"condition": "noise", "segments": [list(s) for s in clip.segments]}}
    samples, rate = soundfile.read(tmp_path / "new/00_noise.ogg", dtype="float32")
    assert rate == SAMPLE_RATE_HZ and np.corrcoef(samples, tone)[0, 1] > 0.95
