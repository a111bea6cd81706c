"""Log-mel features are Whisper's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from experiments import audio
from experiments.features import LogMel
from tests.experiments.conftest import CLIPS


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("sound", ["speech", "noise", "quiet"])
def test_features_match_transformers_extractor(sound: str, n_mels: int) -> None:
    if sound == "speech":
        pcm = audio.load(CLIPS / "kernels.flac")[0].windows()[0]
    else:
        pcm = np.random.default_rng(0).standard_normal(audio.WINDOW_SAMPLES).astype(np.float32)
        pcm *= 0.1 if sound == "noise" else 1e-6
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    expected = extractor(pcm, sampling_rate=audio.SAMPLE_RATE_HZ, return_tensors="pt").input_features
    ours = LogMel(n_mels)(torch.from_numpy(pcm)[None])
    assert ours.shape == (1, n_mels, 3000)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
