"""The held-out clips, a long file made of clips with silences between them, and whether a transcript of it is
sound."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments import audio
from experiments.audio import SAMPLE_RATE_HZ, Clip
from experiments.bundled import HELD_OUT
from experiments.transcribe.results import Segment
from harness.errors import ExitCode, UserError

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.3, 6.0


@dataclass(frozen=True)
class Joined:
    """samples: float32 at 16 kHz; reference: all that is said; sources, starts_s: name of
    each clip and where it begins."""

    samples: np.ndarray
    reference: str
    sources: tuple[str, ...]
    starts_s: tuple[float, ...]


def held_out() -> list[Clip]:
    """The clips that the bundled checkpoint never heard. Raises UserError if this copy lacks them."""
    if not HELD_OUT.is_dir():
        hint = "a whole checkout of the project: git checkout experiments/clips/heldout"
        raise UserError(f"{HELD_OUT} is missing, whose clips are transcribed here", hint, ExitCode.INPUT)
    return audio.load(HELD_OUT)


def join(clips: Sequence[Clip], dur_s: float, seed: int = 0) -> Joined:
    """Clips in a shuffled order, again and again until `dur_s` is reached, with pauses of 0.3 to 6 s."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    words, sources, starts = [], [], []
    samples = 0
    while samples < dur_s * SAMPLE_RATE_HZ:
        for index in rng.permutation(len(clips)):
            pause = round(rng.uniform(SHORTEST_PAUSE_S, LONGEST_PAUSE_S) * SAMPLE_RATE_HZ)
            parts += [np.zeros(pause, np.float32), clips[index].samples]
            starts.append((samples + pause) / SAMPLE_RATE_HZ)
            sources.append(clips[index].source)
            words.append(clips[index].reference or "")
            samples += pause + len(clips[index].samples)
            if samples >= dur_s * SAMPLE_RATE_HZ:
                break
    return Joined(np.concatenate(parts), " ".join(words), tuple(sources), tuple(starts))


def disorder(segments: Sequence[Segment]) -> int:
    """How many segments begin before the one before ends, or end before they begin."""
    backwards = sum(segment.end < segment.start for segment in segments)
    return backwards + sum(b.start < a.end for a, b in itertools.pairwise(segments))
