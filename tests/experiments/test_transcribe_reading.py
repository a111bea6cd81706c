"""Sound files as a stream: the same samples as librosa's, whatever rate and channels; what can't be read."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile

from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from experiments.transcribe.reading import Stream, open_sound, sound_files, standard_input
from harness.errors import ExitCode, UserError
from tests.experiments.bad_sound import BAD_SOUND, bad_sound, guessed_mp3
from tests.experiments.scripted import noise


def read(path: Path) -> np.ndarray:
    return np.concatenate(list(open_sound(path).blocks()))


@pytest.mark.parametrize(
    ("rate_hz", "channels", "name"),
    [
        (16_000, 1, "a.flac"),
        (44_100, 2, "a.wav"),
        (8_000, 8, "a.wav"),
        (96_000, 1, "a.flac"),
        (48_000, 1, "a.ogg"),
    ],
)
def test_a_stream_has_the_samples_that_librosa_loads(
    rate_hz: int, channels: int, name: str, tmp_path: Path
) -> None:
    pcm = np.stack([noise(25.0 * rate_hz / SAMPLE_RATE_HZ, seed=n) for n in range(channels)], axis=1)
    soundfile.write(tmp_path / name, pcm, rate_hz)
    ours = read(tmp_path / name)
    theirs, _ = librosa.load(tmp_path / name, sr=SAMPLE_RATE_HZ, mono=True)
    assert abs(len(ours) - len(theirs)) <= 1
    shortest = min(len(ours), len(theirs))
    assert np.abs(ours[:shortest] - theirs[:shortest]).max() < 1e-3
    found = open_sound(tmp_path / name)
    assert found.dur_s == pytest.approx(25.0, abs=0.01)


def test_windows_of_a_stream_go_forward_and_hold_little() -> None:
    pcm = noise(100)
    asked = []

    def blocks() -> Iterator[np.ndarray]:
        for n, block in enumerate(np.array_split(pcm, 33)):
            asked.append(n)
            yield block

    stream = Stream(blocks())
    assert len(stream.window(0)) == WINDOW_SAMPLES
    assert len(asked) <= 11, "no more is read than the window needs"
    for start in (0, 16_000, 16_001, 40 * 16_000, 95 * 16_000, 100 * 16_000):
        assert np.array_equal(stream.window(start), pcm[start : start + WINDOW_SAMPLES])


# Silence is an empty text, and hours are no hindrance.
@pytest.mark.parametrize("kind", sorted(BAD_SOUND.keys() - {"zeros", "hours", "folder"}))
def test_what_can_not_be_used_is_said(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=BAD_SOUND[kind].split()[0]) as caught:
        read(bad_sound(tmp_path, kind))
    assert caught.value.exit_code == ExitCode.INPUT


def test_an_mp3_ends_where_its_sound_does(tmp_path: Path) -> None:
    path = guessed_mp3(tmp_path)
    assert soundfile.info(path).duration > 4, "a right guess would prove nothing"
    assert len(read(path)) == pytest.approx(2 * SAMPLE_RATE_HZ, rel=0.1)


# What ffmpeg, sox and arecord write into a pipe.
@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFF00, 0x80000000])
def test_wav_from_a_pipe_is_read(size: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.0), SAMPLE_RATE_HZ)
    whole = bytearray((tmp_path / "a.wav").read_bytes())
    whole[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(whole)
    assert len(read(tmp_path / "a.wav")) == SAMPLE_RATE_HZ


def test_one_bad_sample_hours_into_a_file_is_found(tmp_path: Path) -> None:
    pcm = noise(30)
    pcm[-1000] = np.inf
    soundfile.write(tmp_path / "a.wav", pcm, SAMPLE_RATE_HZ, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinite"):
        read(tmp_path / "a.wav")


def test_a_folder_s_sound_is_taken_whoever_reads_it(tmp_path: Path) -> None:
    for name in ("b.wav", "a.m4a", "c.txt", "d.FLAC"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    assert [path.name for path in sound_files(tmp_path)] == ["a.m4a", "b.wav", "d.FLAC"]
    with pytest.raises(UserError, match="holds no sound file"):
        sound_files(tmp_path / "deeper")
    assert sound_files(tmp_path / "absent.wav") == [tmp_path / "absent.wav"], "its turn comes"


def test_standard_input_is_a_file_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.ogg", noise(1.0), SAMPLE_RATE_HZ)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO((tmp_path / "a.ogg").read_bytes())))
    with standard_input() as path:
        assert len(read(path)) == SAMPLE_RATE_HZ
    assert not path.exists()
