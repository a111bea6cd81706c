"""The boundary to the decoder: windows of sound in, tokens and how sure the model was out.

Whoever implements `WindowDecoder` decides how: graphs, batches, kernels. Nothing else in this package knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Window:
    """A window to be decoded.

    pcm: float32 [up to 480000] at 16 kHz; prompt: token ids, from the text before to the task; temperature: 0
    for the likeliest token at each step; seed: of the noise that a temperature above 0 draws with.
    """

    pcm: np.ndarray
    prompt: tuple[int, ...]
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Decoded:
    """What the model says of a window.

    tokens: without prompt and end token; avg_logprob: the mean over the tokens and the end token (at
    temperature 1, after Whisper's rules); no_speech_prob: of the no-speech token at the place where the
    language is decided; alignment: how much each text token listens to each 0.02 s, float32
    [text tokens + end, frames], and probabilities float32 [text tokens], if words were asked for.
    """

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    alignment: np.ndarray | None = None
    probabilities: np.ndarray | None = None


Collect = Callable[[], list[Decoded]]


class WindowDecoder(Protocol):
    """Decodes up to `batch` windows at once, on a device that works while the host does something else."""

    @property
    def batch(self) -> int: ...

    def queue(self, windows: Sequence[Window]) -> Collect:
        """Hand over 1 to `batch` windows. What is returned waits for them and gives their results in their
        order; before that, the next windows may be handed over."""
        ...
