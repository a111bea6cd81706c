"""Sound that is put together and disturbed stays what the labels say it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train.augment import Disturbance, assemble, coloured_noise, mask_spectrogram, melody

NONE = 2**40  # where a segment that is not there starts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speech(rows: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Bursts of noise below full scale and where each window ends; the last window is silent."""
    pcm = 0.1 * torch.randn((rows, width), generator=generator(seed)).clamp(-5, 5)
    pcm[:, : width // 10] = 0
    pcm[-1] = 0
    end = torch.linspace(width // 2, width, rows).long()
    return pcm * (torch.arange(width) < end[:, None]), end


@st.composite
def layouts(draw: st.DrawFn) -> tuple[np.ndarray, list[list[tuple[int, int, int, float]]], int]:
    """int16 samples, rows of (start, source, length, gain) that don't overlap, the window's width."""
    samples = draw(st.integers(1, 200))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        at, row = 0, []
        for _ in range(draw(st.integers(0, 4))):
            start = at + draw(st.integers(0, 30))
            source = draw(st.integers(0, samples - 1))
            length = draw(st.integers(1, samples - source))
            row.append((start, source, length, draw(st.floats(0.0625, 1.0, width=32))))
            at = start + length
        rows.append(row)
    seed = draw(st.integers(0, 1000))
    sound = np.random.default_rng(seed).integers(-(2**15), 2**15, samples).astype(np.int16)
    return sound, rows, draw(st.integers(1, 300))


@settings(deadline=None)
@given(layouts())
def test_assemble_puts_each_segment_where_the_layout_says(
    layout: tuple[np.ndarray, list[list[tuple[int, int, int, float]]], int],
) -> None:
    sound, rows, width = layout
    expected = np.zeros((len(rows), width), np.float32)
    for n, row in enumerate(rows):
        for start, source, length, gain in row:
            for offset in range(min(length, max(0, width - start))):
                expected[n, start + offset] = np.float32(sound[source + offset] / 32768) * np.float32(gain)
    longest = max([1, *(len(row) for row in rows)])
    padded = [row + [(NONE, 0, 0, 0.0)] * (longest - len(row)) for row in rows]
    start, source, length = (torch.tensor([[s[k] for s in row] for row in padded]) for k in range(3))
    gain = torch.tensor([[s[3] for s in row] for row in padded], dtype=torch.float32)
    found = assemble(torch.from_numpy(sound), start, source, length, gain, width)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_disturbance_is_its_generators() -> None:
    pcm, end = speech(8, 2 * SAMPLE_RATE_HZ)
    disturb = Disturbance("cpu")
    state = torch.get_rng_state()
    one = disturb(pcm, end, 0.3, generator(1))
    assert torch.equal(one, disturb(pcm, end, 0.3, generator(1)))
    assert not torch.equal(one, disturb(pcm, end, 0.3, generator(2)))
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is left alone"


@pytest.mark.parametrize("untouched", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ + 7])
def test_disturbed_sound_is_finite_within_full_scale_and_ends_where_it_should(
    untouched: float, width: int
) -> None:
    pcm, end = speech(32, width)
    before = pcm.clone()
    heard = Disturbance("cpu")(10 * pcm, end, untouched, generator(4))
    assert heard.shape == pcm.shape
    assert heard.isfinite().all()
    assert heard.abs().max() <= 1
    assert (heard[torch.arange(width) >= end[:, None]] == 0).all()
    assert torch.equal(pcm, before)
    if untouched != 0.5:
        assert (heard[-1] == 0).all() == (untouched == 1.0), "a window without speech is noise, or nothing"


def test_untouched_windows_change_their_level_only() -> None:
    pcm, end = speech(16, SAMPLE_RATE_HZ)
    heard = Disturbance("cpu")(pcm, end, 1.0, generator(5))
    levels = heard.norm(dim=1) / pcm.norm(dim=1).clamp(min=1e-9)
    torch.testing.assert_close(heard, pcm * levels[:, None])
    levels_db = 20 * levels[:-1].log10()
    assert (levels_db > -25.1).all() and (levels_db < 0.1).all()
    assert levels_db.std() > 3


def test_touched_windows_are_heard_in_a_room_and_in_noise() -> None:
    pcm, end = speech(32, SAMPLE_RATE_HZ)
    pcm, end = pcm[:-1], end[:-1]
    room = Disturbance("cpu").room(pcm, 0.0, generator(6))
    kept = Disturbance("cpu").room(pcm, 1.0, generator(6))
    assert torch.equal(kept, pcm)
    likeness = torch.nn.functional.cosine_similarity(room, pcm)
    assert (likeness < 0.999).all(), "every window is in a room"
    assert likeness.median() > 0.5, "and the words are still there"
    heard = Disturbance("cpu")(pcm, end, 0.0, generator(6))
    pause = heard[:, : SAMPLE_RATE_HZ // 20]
    assert (pause.square().mean(1) > 0).all(), "noise is in the pauses too"


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_coloured_noise_has_power_1_and_its_colour(slope: float) -> None:
    noise = coloured_noise((4, 4 * SAMPLE_RATE_HZ), torch.full((4, 1), slope), generator(), "cpu")
    torch.testing.assert_close(noise.square().mean(1), torch.ones(4))
    power = torch.fft.rfft(noise.double()).abs().square().mean(0)
    hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, len(power))
    low, high = (power[(hz >= f) & (hz < 2 * f)].mean() for f in (200, 3200))
    # Amplitude f^-slope: four octaves up the power is 16^(-2 slope) of what it was.
    assert (high / low).item() == pytest.approx(16 ** (-2 * slope), rel=0.2)


@pytest.mark.parametrize("width", [SAMPLE_RATE_HZ // 2, 3 * SAMPLE_RATE_HZ + 1])
def test_melody_has_power_1_and_other_notes_in_each_window(width: int) -> None:
    music = melody((6, width), generator(), "cpu")
    assert music.isfinite().all()
    torch.testing.assert_close(music.square().mean(1), torch.ones(6))
    likeness = torch.corrcoef(music) - torch.eye(6)
    assert likeness.abs().max() < 0.9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), frames=st.sampled_from([100, 400, 1000, 3000]))
def test_masks_hide_no_more_than_they_say(seed: int, frames: int) -> None:
    mel = torch.randn((3, 80, frames), generator=generator(seed + 1))
    before = mel.clone()
    masked = mask_spectrogram(mel, generator(seed))
    assert torch.equal(mel, before)
    hidden = masked != mel
    mean = mel.mean((1, 2), keepdim=True).expand_as(mel)
    assert torch.equal(masked[hidden], mean[hidden])
    bands, stretches = hidden.all(2), hidden.all(1)
    assert (bands.sum(1) <= 2 * 12).all()
    assert (stretches.sum(1) <= 20 * max(1, frames // 500)).all()
    assert torch.equal(hidden, bands[:, :, None] | stretches[:, None, :]), "bands and stretches, nothing else"


def test_masks_do_hide() -> None:
    mel = torch.randn((64, 80, 1000), generator=generator())
    hidden = mask_spectrogram(mel, generator(1)) != mel
    assert 0.08 < hidden.float().mean() < 0.25
