"""From segments to the sound of a room: windows are put together and disturbed on the GPU, batch by batch."""

from __future__ import annotations

import torch

from experiments.audio import SAMPLE_RATE_HZ

FULL_SCALE = 32768.0
SHORTEST_NOTE_S = 0.15
IMPULSE_SAMPLES = SAMPLE_RATE_HZ // 2  # of the longest reverberation that is kept


def assemble(
    samples: torch.Tensor,
    start: torch.Tensor,
    source: torch.Tensor,
    length: torch.Tensor,
    gain: torch.Tensor,
    width: int,
) -> torch.Tensor:
    """Segments of `samples` (int16 [n]) in windows: float32 [B, width], silence between.

    start, source, length: int64 [B, S], `start` ascending in each row; gain: float32 [B, S].
    """
    at = torch.arange(width, device=samples.device).expand(len(start), width).contiguous()
    segment = (torch.searchsorted(start, at, right=True) - 1).clamp(min=0)
    offset = at - start.gather(1, segment)
    inside = (offset >= 0) & (offset < length.gather(1, segment))
    index = torch.where(inside, source.gather(1, segment) + offset, 0)
    return samples[index].float() / FULL_SCALE * (gain.gather(1, segment) * inside)


class Disturbance:
    """Rooms, microphones, noise and music, drawn anew for each window. Seeded by its generator."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __call__(
        self, pcm: torch.Tensor, end: torch.Tensor, untouched: float, generator: torch.Generator
    ) -> torch.Tensor:
        """pcm: float32 [B, N]; end: int64 [B], digital silence follows it.

        untouched: share of the windows that stay without room and microphone, and of those without noise.
        """
        heard = self.room(pcm, untouched, generator)
        background = self._background(pcm.shape, generator)
        snr_db = self._uniform((len(pcm), 1), 6, 40, generator)
        loud = heard.square().sum(1, keepdim=True) / (heard != 0).sum(1, keepdim=True).clamp(min=1)
        loud = torch.where(loud > 0, loud, 0.01)
        noise = background * (loud / 10 ** (snr_db / 10)).sqrt()
        noisy = torch.rand((len(pcm), 1), generator=generator, device=self._device) >= untouched
        level = 10 ** (self._uniform((len(pcm), 1), -25, 0, generator) / 20)
        mixed = (heard + noise * noisy) * level
        inside = torch.arange(pcm.shape[1], device=self._device) < end[:, None]
        return (mixed * inside).clamp(-1, 1)

    def _uniform(self, shape: tuple[int, ...], low: float, high: float, g: torch.Generator) -> torch.Tensor:
        return torch.rand(shape, generator=g, device=self._device) * (high - low) + low

    def room(self, pcm: torch.Tensor, untouched: float, g: torch.Generator) -> torch.Tensor:
        """A decaying-noise impulse response and a smooth equaliser, as one filter."""
        count, width = pcm.shape
        size = _fft_size(width + IMPULSE_SAMPLES)
        seconds = torch.arange(IMPULSE_SAMPLES, device=self._device) / SAMPLE_RATE_HZ
        # -60 dB after `rt60`: amplitude exp(-6.9 t / rt60).
        rt60 = self._uniform((count, 1), 0.1, 0.7, g)
        tail = torch.randn((count, IMPULSE_SAMPLES), generator=g, device=self._device)
        tail = tail * torch.exp(-6.9 * seconds / rt60)
        wet = self._uniform((count, 1), 0.0, 0.7, g)
        impulse = tail / tail.norm(dim=1, keepdim=True) * wet
        impulse[:, 0] += 1
        response = torch.fft.rfft(impulse, size) * self._equaliser(count, size // 2 + 1, g)
        filtered = torch.fft.irfft(torch.fft.rfft(pcm, size) * response, size)[:, :width]
        is_untouched = torch.rand((count, 1), generator=g, device=self._device) < untouched
        return torch.where(is_untouched, pcm, filtered)

    def _equaliser(self, count: int, bins: int, g: torch.Generator) -> torch.Tensor:
        """Gains of a random microphone: 10 control points of about 4 dB; every tenth is a telephone."""
        points = 4 * torch.randn((count, 1, 10), generator=g, device=self._device)
        curve = torch.nn.functional.interpolate(points, bins, mode="linear", align_corners=True)[:, 0]
        gain = 10 ** (curve / 20)
        hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, bins, device=self._device)
        telephone = ((hz > 300) & (hz < 3400)).float().clamp(min=0.01)
        is_telephone = torch.rand((count, 1), generator=g, device=self._device) < 0.1
        return torch.where(is_telephone, gain * telephone, gain)

    def _background(self, shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
        """Coloured noise (white to pink to brown) or music, of power 1."""
        noise = coloured_noise(shape, self._uniform((shape[0], 1), 0, 1, g), g, self._device)
        music = melody(shape, g, self._device)
        is_music = torch.rand((shape[0], 1), generator=g, device=self._device) < 0.2
        return torch.where(is_music, music, noise)


def coloured_noise(
    shape: tuple[int, ...], slope: torch.Tensor, g: torch.Generator, device: str
) -> torch.Tensor:
    """Gaussian noise [B, N] of power 1 whose amplitude falls with frequency as f^-slope; slope: [B, 1]."""
    size = _fft_size(shape[1])
    white = torch.randn((shape[0], size), generator=g, device=device)
    spectrum = torch.fft.rfft(white)
    hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.shape[1], device=device).clamp(min=20)
    noise = torch.fft.irfft(spectrum * hz**-slope, size)[:, : shape[1]]
    return noise / noise.square().mean(1, keepdim=True).sqrt()


def melody(shape: tuple[int, ...], g: torch.Generator, device: str) -> torch.Tensor:
    """Music of a kind, [B, N] of power 1: three voices of plucked notes with overtones, on one scale."""
    count, width = shape
    seconds = torch.arange(width, device=device) / SAMPLE_RATE_HZ
    scale = torch.tensor([0, 2, 4, 5, 7, 9, 11, 12], device=device)
    total = torch.zeros(shape, device=device)
    for octave in (-12, 0, 12):
        note_s = SHORTEST_NOTE_S + 0.45 * torch.rand((count, 1), generator=g, device=device)
        beat = (seconds / note_s).long()
        notes = (
            int(width / SAMPLE_RATE_HZ / SHORTEST_NOTE_S) + 1
        )  # asking for beat.max() would stop the queue
        steps = torch.randint(0, len(scale), (count, notes), generator=g, device=device)
        root = torch.randint(-6, 6, (count, 1), generator=g, device=device)
        pitch = 220.0 * 2.0 ** ((scale[steps] + root + octave) / 12)
        hz = pitch.gather(1, beat)
        since = seconds - beat * note_s
        decay = torch.exp(-since * 4) * (1 - torch.exp(-since * 200))
        for overtone in (1, 2, 3):
            total += decay / overtone * torch.sin(2 * torch.pi * overtone * hz * since)
    return total / total.square().mean(1, keepdim=True).sqrt()


def mask_spectrogram(mel: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779) without warping; mel: [B, n_mels, frames].

    Two bands of up to 12 channels, and one stretch of up to 0.2 s in every 5 s, are set to the mean.
    """
    mel = mel.clone()
    count, channels, frames = mel.shape
    mean = mel.mean(dim=(1, 2), keepdim=True)
    for axis, size, widest, times in ((1, channels, 12, 2), (2, frames, 20, max(1, frames // 500))):
        at = torch.arange(size, device=mel.device)
        for _ in range(times):
            width = torch.randint(0, widest + 1, (count, 1), generator=g, device=mel.device)
            first = torch.randint(0, size - widest, (count, 1), generator=g, device=mel.device)
            hidden = (at >= first) & (at < first + width)
            mel = torch.where(hidden[:, :, None] if axis == 1 else hidden[:, None, :], mean, mel)
    return mel


def _fft_size(least: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(least, real=True))
