"""transformers' own transcription of the same sound by the bundled checkpoint, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from experiments.audio import SAMPLE_RATE_HZ, Clip
from experiments.bundled import CHECKPOINT
from experiments.transcribe.fallback import Thresholds


def texts(clips: Sequence[Clip]) -> dict[str, str]:
    """The text of each clip, by its source."""
    transcribe = _Generate()
    return {clip.source: transcribe(clip.samples) for clip in clips}


def text(samples: np.ndarray) -> str:
    """float32 [n] at 16 kHz, of any length."""
    return _Generate()(samples)


class _Generate:
    """`generate` with Whisper's thresholds, each window by itself, as the pipeline's default is."""

    def __init__(self) -> None:
        self._model = WhisperForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
        self._processor = WhisperProcessor.from_pretrained(CHECKPOINT)

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> str:
        long = len(samples) > 30 * SAMPLE_RATE_HZ
        inputs = self._processor(
            samples,
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
            truncation=False,
            padding="longest" if long else "max_length",
            return_attention_mask=True,
        )
        thresholds = Thresholds()
        found = self._model.generate(
            inputs.input_features,
            attention_mask=inputs.attention_mask,
            return_timestamps=True,
            language="en",
            task="transcribe",
            num_beams=1,
            temperature=thresholds.temperatures,
            compression_ratio_threshold=thresholds.compression_ratio_threshold,
            logprob_threshold=thresholds.logprob_threshold,
            no_speech_threshold=thresholds.no_speech_threshold,
            condition_on_prev_tokens=False,
        )
        return str(self._processor.batch_decode(found, skip_special_tokens=True)[0])
