"""Any sound becomes 30 s windows of 16 kHz mono; what can't be used is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments import audio
from tests.experiments.bad_sound import guessed_mp3, tone
from tests.experiments.conftest import CLIPS


def test_shipped_clips_have_their_text() -> None:
    clips = audio.load(CLIPS)
    assert [clip.source for clip in clips] == ["harbour.flac", "kernels.flac"]
    assert all(clip.reference and 5 < clip.dur_s < 15 for clip in clips)
    assert audio.check(CLIPS, max_seconds=600) == []


@pytest.mark.parametrize("seconds, windows", [(0.5, 1), (30.0, 1), (30.01, 2), (65.0, 3)])
def test_windows_cover_every_sample_and_pad_the_rest(seconds: float, windows: int) -> None:
    samples = tone(seconds)[:, 0]
    cut = audio.Clip("tone", samples, None).windows()
    assert cut.shape == (windows, audio.WINDOW_SAMPLES)
    np.testing.assert_array_equal(cut.ravel()[: len(samples)], samples)
    assert not cut.ravel()[len(samples) :].any()


def test_eight_channels_at_96_khz_are_mixed_down_and_resampled_with_a_note(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "wide.wav", tone(1.0, 96_000, 8), 96_000, subtype="FLOAT")
    assert audio.check(tmp_path, 600) == [
        "wide.wav: 8 channels, mixed down to one",
        "wide.wav: 96000 Hz, resampled to 16000 Hz",
    ]
    samples = audio.load(tmp_path)[0].samples
    assert abs(len(samples) - 16_000) <= 1
    middle = samples[2000:-2000]  # resampling rings at the edges
    np.testing.assert_allclose(middle, tone(1.0)[2000 : 2000 + len(middle), 0], atol=5e-3)


def test_an_mp3_that_does_not_say_its_length_is_not_called_truncated(tmp_path: Path) -> None:
    path = guessed_mp3(tmp_path)
    assert audio.check(path, 600) == []
    assert audio.load(path)[0].dur_s == pytest.approx(2.0, abs=0.2)


def test_a_folder_is_read_in_order_of_names_and_ignores_other_files(tmp_path: Path) -> None:
    for name in ("b.wav", "a.ogg"):
        soundfile.write(tmp_path / name, tone(0.5), 16_000)
    (tmp_path / "notes.md").write_text("not sound")
    assert [path.name for path in audio.sound_files(tmp_path)] == ["a.ogg", "b.wav"]
