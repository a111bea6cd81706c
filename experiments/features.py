"""Log-mel spectrograms as Whisper defines them, computed where the model runs.

Source: Radford et al. 2022 (arXiv 2212.04356), section 2.2: 80 (or 128) mel channels, windows of 25 ms every
10 ms, log10, clamped to 8 below the maximum of the window, scaled by (x + 4) / 4.
"""

from __future__ import annotations

import librosa
import torch

from experiments.audio import SAMPLE_RATE_HZ

N_FFT = 400
HOP = 160


class LogMel(torch.nn.Module):
    """PCM [batch, 480000] at 16 kHz, float32 -> log-mel [batch, n_mels, 3000], float32."""

    filters: torch.Tensor
    window: torch.Tensor

    def __init__(self, n_mels: int = 80) -> None:
        super().__init__()
        filters = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=N_FFT, n_mels=n_mels)
        self.register_buffer("filters", torch.from_numpy(filters))
        self.register_buffer("window", torch.hann_window(N_FFT))

    def forward(self, pcm: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(pcm, N_FFT, HOP, window=self.window, return_complex=True)
        power = spectrum[..., :-1].abs().square()  # Whisper drops the frame past the end
        log_mel = (self.filters @ power).clamp(min=1e-10).log10()
        floor = log_mel.amax(dim=(-2, -1), keepdim=True) - 8.0
        return (torch.maximum(log_mel, floor) + 4.0) / 4.0
