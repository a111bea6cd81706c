"""Sound of any length, window after window, as Whisper does it (openai-whisper's transcribe.py).

Each window begins where the segments of the one before end. `decode_stretch` is a generator that asks for a
window to be decoded and is sent the result: whoever drives it decides which windows are decoded together. So
the windows of one file one after the other, of many files side by side, and of one file cut at its silences
are the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ, SHORTEST_S
from experiments.transcribe.decoding import Decoded, Window
from experiments.transcribe.fallback import Thresholds, compression_ratio
from experiments.transcribe.levels import loudest, quiet_start
from experiments.transcribe.results import Segment, Word
from experiments.transcribe.segments import Piece, Pieces, split, text_tokens
from experiments.transcribe.words import token_starts, words

QUIET = 0.1  # of the loudest part of the speech before, as amplitude: 20 dB below it
AGAIN_S = 1.0
StretchDecoding = Generator[Window, Decoded, list[Segment]]


@dataclass(frozen=True)
class Language:
    """What `decode_stretch` has to know of the model's tokens.

    task: prompt of every window, from the start token to the task; previous: the token before the text of
    windows before, None if the model has none; end, timestamp_begin: ids; text: what text tokens say, spaces
    included.
    """

    task: tuple[int, ...]
    previous: int | None
    end: int
    timestamp_begin: int
    text: Callable[[list[int]], str]


@dataclass(frozen=True)
class LongFormOptions:
    """previous_tokens: of the text before, at most, that the next window is given; 0 for none, with which the
    bundled checkpoint does best (20 minutes of joined clips: 1.3% WER; with 60 tokens 2.5%, with 223, which
    is Whisper's own number, it falls silent: it was trained with prompts of 120 at most). verify_silence: do
    not lose speech around long pauses, as Whisper does: a window begins where there is sound; that nothing
    more is said in it is believed only if the rest is quiet; one in which the model hears speech and writes
    nothing is heard again from a second later.
    """

    previous_tokens: int = 0
    verify_silence: bool = True
    thresholds: Thresholds = field(default_factory=Thresholds)


class Pcm(Protocol):
    """Sound that is read from its beginning to its end."""

    def window(self, start: int) -> np.ndarray:
        """Up to 480000 samples from `start`, float32; `start` never goes back. Raises UserError."""
        ...


def decode_stretch(
    sound: Pcm,
    offset_s: float,
    on_progress: Callable[[float], object],
    language: Language,
    options: LongFormOptions,
) -> StretchDecoding:
    """The segments of `sound`, which begins `offset_s` into its file.

    on_progress: told how many more seconds are behind us.

    Yields each window to be decoded and has to be sent its `Decoded`.
    """
    segments: list[Segment] = []
    before: list[int] = []
    start, missed = 0, False
    while len(pcm := sound.window(start)) >= SHORTEST_S * SAMPLE_RATE_HZ:
        if options.verify_silence and (pause := quiet_start(pcm)):
            start += pause
            pcm = sound.window(start)
            on_progress(pause / SAMPLE_RATE_HZ)
        at_s, window_s = offset_s + start / SAMPLE_RATE_HZ, len(pcm) / SAMPLE_RATE_HZ
        prompt = _prompt(before, language, options)
        decoded, temperature = yield from _with_fallback(pcm, prompt, at_s, language, options)
        found = split(decoded.tokens, language.timestamp_begin, window_s)
        if options.thresholds.is_silence(decoded):
            found = Pieces((), window_s)
        said = _segments(found.pieces, decoded, temperature, at_s, language)
        accounted_s = found.accounted_s
        if options.verify_silence:
            speech = decoded.no_speech_prob < options.thresholds.no_speech_threshold
            missed = speech and not said and not missed
            accounted_s = min(AGAIN_S, window_s) if missed else _checked(found, pcm)
        segments += said
        before += [token for segment in said for token in text_tokens(segment.tokens, language.end)]
        if temperature > options.thresholds.prompt_reset_on_temperature:
            before.clear()
        start += max(1, round(accounted_s * SAMPLE_RATE_HZ))
        on_progress(min(accounted_s, window_s))
    return segments


def _with_fallback(
    pcm: np.ndarray, prompt: tuple[int, ...], at_s: float, language: Language, options: LongFormOptions
) -> Generator[Window, Decoded, tuple[Decoded, float]]:
    """Decode at rising temperatures until the result can be believed."""
    for temperature in options.thresholds.temperatures:
        # The same window draws the same noise, whatever is decoded beside it.
        decoded = yield Window(pcm, prompt, temperature, seed=round(at_s * 1000))
        text = language.text(text_tokens(decoded.tokens, language.end))
        if not options.thresholds.needs_fallback(decoded, text):
            break
    return decoded, temperature


def _checked(found: Pieces, pcm: np.ndarray) -> float:
    """Where the next window begins, in seconds of this one."""
    if not found.ended_s:
        return found.accounted_s
    end = round(found.ended_s * SAMPLE_RATE_HZ)
    rest = loudest(pcm[end:])
    return found.ended_s if rest > QUIET * loudest(pcm[:end]) else found.accounted_s


def _prompt(before: list[int], language: Language, options: LongFormOptions) -> tuple[int, ...]:
    if not before or not options.previous_tokens or language.previous is None:
        return language.task
    return (language.previous, *before[-options.previous_tokens :], *language.task)


def _segments(
    pieces: Sequence[Piece], decoded: Decoded, temperature: float, at_s: float, language: Language
) -> list[Segment]:
    """Those pieces that say something, their times moved by `at_s`; words if the decoder aligned them."""
    ratio = compression_ratio(language.text(text_tokens(decoded.tokens, language.end)))
    starts = None if decoded.alignment is None else token_starts(decoded.alignment)
    found = []
    done = 0
    for piece in pieces:
        text = text_tokens(piece.tokens, language.end)
        here = slice(done, done := done + len(text))
        if not (said := language.text(text)).strip():
            continue
        spoken: list[Word] = []
        if starts is not None and decoded.probabilities is not None:
            times = starts[here.start : here.stop + 1]
            spoken = words(text, times, decoded.probabilities[here], language.text, (piece.start, piece.end))
        found.append(
            Segment(
                start=round(at_s + piece.start, 3),
                end=round(at_s + piece.end, 3),
                text=said,
                tokens=piece.tokens,
                temperature=temperature,
                avg_logprob=decoded.avg_logprob,
                compression_ratio=ratio,
                no_speech_prob=decoded.no_speech_prob,
                words=tuple(word.moved(at_s) for word in spoken),
            )
        )
    return found
