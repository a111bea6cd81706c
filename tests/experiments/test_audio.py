"""Any sound becomes 30 s windows of 16 kHz mono; what can't be used is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments import audio
from harness.errors import ExitCode, UserError
from tests.experiments.conftest import CLIPS


def tone(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


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


def test_a_folder_is_read_in_order_of_names_and_ignores_other_files(tmp_path: Path) -> None:
    for name in ("b.wav", "a.ogg"):
        soundfile.write(tmp_path / name, tone(0.5), 16_000)
    (tmp_path / "notes.md").write_text("not sound")
    assert [path.name for path in audio.sound_files(tmp_path)] == ["a.ogg", "b.wav"]


def bad_sound(folder: Path, kind: str) -> Path:
    """One file (or a missing one) for each way in which audio can be unusable."""
    path = folder / f"{kind}.wav"
    match kind:
        case "empty":
            path.touch()
        case "text":
            path.write_text("this is no sound")
        case "zeros":
            soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
        case "nan":
            soundfile.write(path, np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
        case "short":
            soundfile.write(path, tone(0.01), 16_000)
        case "truncated":
            soundfile.write(path, tone(2.0), 16_000)
            path.write_bytes(path.read_bytes()[:20_000])
        case "truncated-flac":
            path = folder / "truncated.flac"
            soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 64_000), 16_000)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "hours":
            # Written in blocks: three hours of silence with a click, small on disk as FLAC.
            path = folder / "hours.flac"
            block = np.zeros(16_000 * 600, np.float32)
            block[0] = 0.5
            with soundfile.SoundFile(path, "w", 16_000, 1) as file:
                for _ in range(18):
                    file.write(block)
        case "folder":
            path = folder / "no-sound-here"
            path.mkdir()
    return path


BAD_SOUND = {
    "missing": "does not exist",
    "empty": "is empty",
    "text": "is not a sound file",
    "zeros": "silence only",
    "nan": "NaN",
    "short": "0.010 s",
    "truncated": "truncated",
    "truncated-flac": "truncated",
    "hours": "3 h 00 min",
    "folder": "holds no sound file",
}


@pytest.mark.parametrize("kind", BAD_SOUND)
def test_unusable_audio_is_refused_with_its_reason(kind: str, tmp_path: Path) -> None:
    path = bad_sound(tmp_path, kind)
    with pytest.raises(UserError, match=BAD_SOUND[kind]) as refused:
        audio.check(path, max_seconds=600)
    assert refused.value.exit_code == ExitCode.INPUT
    assert str(path) in str(refused.value)
    assert refused.value.hint
