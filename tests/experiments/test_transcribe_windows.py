"""Cutting at silences, and how loud sound is."""

from __future__ import annotations

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from experiments.transcribe.levels import levels, loudest, quiet_start
from experiments.transcribe.windows import cut
from tests.experiments.scripted import Samples, noise


def silenced(pcm: np.ndarray, *spans_s: tuple[float, float]) -> np.ndarray:
    for begin, end in spans_s:
        pcm[round(begin * SAMPLE_RATE_HZ) : round(end * SAMPLE_RATE_HZ)] *= 0.01
    return pcm


def test_nothing_is_lost_or_heard_twice_and_everything_fits() -> None:
    pcm = noise(125.3)
    stretches = list(cut(Samples(pcm)))
    assert np.array_equal(np.concatenate([s.pcm for s in stretches]), pcm)
    assert [s.start for s in stretches] == [0, *np.cumsum([len(s.pcm) for s in stretches])[:-1]]
    assert all(15 <= len(s.pcm) / SAMPLE_RATE_HZ <= 30 for s in stretches[:-1])
    assert stretches[1].start_s == stretches[1].start / SAMPLE_RATE_HZ


def test_a_cut_is_in_a_pause() -> None:
    pcm = silenced(noise(50), (10, 11), (22.0, 22.4), (27.30, 27.36))
    first, *_ = cut(Samples(pcm))
    assert 22.05 < len(first.pcm) / SAMPLE_RATE_HZ < 22.35, "the stop of a consonant is no pause"


def test_of_equal_pauses_the_last_is_taken() -> None:
    pcm = noise(50)
    for begin in (17, 24):
        pcm[begin * SAMPLE_RATE_HZ : (begin + 1) * SAMPLE_RATE_HZ] = 0
    first, *_ = cut(Samples(pcm))
    assert 24.4 < len(first.pcm) / SAMPLE_RATE_HZ < 25


def test_short_sound_is_one_stretch() -> None:
    assert [len(s.pcm) for s in cut(Samples(noise(29.9)))] == [round(29.9 * SAMPLE_RATE_HZ)]
    assert list(cut(Samples(np.empty(0, np.float32)))) == []
    silence = np.zeros(2 * WINDOW_SAMPLES, np.float32)
    assert sum(len(s.pcm) for s in cut(Samples(silence))) == len(silence)


def test_levels() -> None:
    assert abs(loudest(noise(1, 0.1)) - 0.1) < 0.01
    assert loudest(noise(0.1)) == 0 and len(levels(np.empty(0, np.float32))) == 0
    click = np.zeros(SAMPLE_RATE_HZ, np.float32)
    click[8000] = 1.0
    assert loudest(click) < 1e-5, "one loud frame is no speech"


def test_a_long_pause_at_the_start_is_passed_over() -> None:
    assert quiet_start(noise(10)) == 0
    assert quiet_start(silenced(noise(10), (0, 0.8))) == 0
    assert 2.5 < quiet_start(silenced(noise(10), (0, 3))) / SAMPLE_RATE_HZ < 2.75
    assert quiet_start(np.zeros(WINDOW_SAMPLES, np.float32)) == 0
