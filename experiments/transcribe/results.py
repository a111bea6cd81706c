"""What a transcription is: segments with their times, words and how sure the model was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One word with its space and punctuation, its times in seconds of the file, and its mean probability."""

    text: str
    start: float
    end: float
    probability: float

    def moved(self, by_s: float) -> Word:
        return Word(self.text, round(self.start + by_s, 3), round(self.end + by_s, 3), self.probability)


@dataclass(frozen=True)
class Segment:
    """A stretch of speech, mostly a sentence; start and end in seconds of the file.

    tokens: of the vocabulary, timestamps included; temperature: at which they were drawn, 0 for the
    likeliest; avg_logprob: mean log-probability of the tokens of the window that this segment is from;
    compression_ratio: of that window's text, large if it repeats itself; no_speech_prob: that nobody speaks
    in the window; words: empty unless they were asked for.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """One sound file in words; dur_s: how long it lasts."""

    source: str
    language: str
    dur_s: float
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        """All that is said, in one line."""
        return " ".join(segment.text.strip() for segment in self.segments).strip()
