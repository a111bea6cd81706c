"""Whether what the model said of a window can be believed, and what to do if not.

Radford et al. 2022 (arXiv 2212.04356), section 4.5, with the thresholds that they found best.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from experiments.transcribe.decoding import Decoded


@dataclass(frozen=True)
class Thresholds:
    """Named as openai-whisper's options, the last as faster-whisper's.

    temperatures: tried in turn until the result is believable; the last is taken as it is;
    prompt_reset_on_temperature: a text drawn at a higher one is no prompt for the next window.
    """

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float = 2.4  # above it the text repeats itself
    logprob_threshold: float = -1.0  # below it the model guesses
    no_speech_threshold: float = 0.6  # above it, with little confidence in the text, nobody speaks
    prompt_reset_on_temperature: float = 0.5

    def is_silence(self, decoded: Decoded) -> bool:
        """Whether nobody speaks in the window, so that its text is to be left out."""
        unsure = decoded.avg_logprob < self.logprob_threshold
        return decoded.no_speech_prob > self.no_speech_threshold and unsure

    def needs_fallback(self, decoded: Decoded, text: str) -> bool:
        """Whether the window has to be decoded again, at a higher temperature."""
        if self.is_silence(decoded):
            return False
        unsure = decoded.avg_logprob < self.logprob_threshold
        return unsure or compression_ratio(text) > self.compression_ratio_threshold


def compression_ratio(text: str) -> float:
    """How many times shorter zlib makes `text`; 0 for no text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0
