"""Where sentences begin and end: transformers' generate with timestamps against the true times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from experiments import word_errors
from experiments.attention import kernels
from experiments.evaluate.subject import LANGUAGE, TRUTH_FILE, Skipped, Subject

WITHIN_S = 0.3

Span = tuple[float, float]  # first and last second


def counterpart(true: Span, predicted: Sequence[Span]) -> Span | None:
    """The predicted span that shares the most time with `true`; None if none shares any."""
    best = max(predicted, key=lambda span: _overlap_s(true, span), default=None)
    return best if best is not None and _overlap_s(true, best) > 0 else None


def _overlap_s(one: Span, other: Span) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])


def score(pairs: Sequence[tuple[Span, Span | None]], within_s: float = WITHIN_S) -> dict[str, Any]:
    """Of (true span, its counterpart): how many have both ends within `within_s`, and how far ends are off.

    Errors are over the segments that have a counterpart; the share is over all.
    """
    found = [(true, heard) for true, heard in pairs if heard is not None]
    errors = np.abs(np.array([np.subtract(true, heard) for true, heard in found])).reshape(-1, 2)
    near = int((errors <= within_s).all(axis=1).sum())
    result: dict[str, Any] = {
        "segments": len(pairs),
        "unmatched": len(pairs) - len(found),
        "within": near,
        "share_within": near / len(pairs) if pairs else None,
    }
    for column, name in enumerate(("start", "end")):
        for label, quantile in (("median", 0.5), ("p95", 0.95)):
            value = float(np.quantile(errors[:, column], quantile)) if found else None
            result[f"{name}_error_{label}_s"] = value
    return result


@torch.inference_mode()
def generate(subject: Subject, features: torch.Tensor) -> list[tuple[Span, list[int]]]:
    """transformers' segments of one window: their times and text tokens. features: [1, n_mels, 3000]."""
    loaded = subject.loaded
    first_timestamp = loaded.prompt[-1] + 1
    with kernels("sdpa", subject.device):
        found = loaded.model.generate(
            features,
            return_timestamps=True,
            return_segments=True,
            do_sample=False,
            num_beams=1,
            **subject.language_arguments,
        )
    return [
        (
            (float(segment["start"]), float(segment["end"])),
            [t for t in segment["tokens"].tolist() if t < first_timestamp and t != loaded.end],
        )
        for segment in found["segments"][0]
    ]


def measure(subject: Subject) -> dict[str, Any]:
    """`all` and `conditions` by name, each as `score` has it, and `wer` of the text that came with the times.

    Of the clips that fit into one window and whose segments are known; Skipped if there are none.
    """
    clips = [clip for clip in subject.one_window() if clip.source in subject.truth]
    if not clips:
        raise Skipped(f"no {TRUTH_FILE} beside the clips says when their sentences begin and end")
    pairs: dict[str, list[tuple[Span, Span | None]]] = {}
    transcripts = []
    for clip in clips:
        truth = subject.truth[clip.source]
        heard = generate(subject, subject.features(clip.windows()))
        spans = [span for span, _ in heard]
        pairs.setdefault(truth.condition, []).extend(
            ((start, end), counterpart((start, end), spans)) for start, end, _ in truth.segments
        )
        text = " ".join(filter(None, (subject.loaded.text(tokens) for _, tokens in heard)))
        transcripts.append({"source": clip.source, "window": 0, "text": text, "reference": clip.reference})
    rates = word_errors.of_transcripts(transcripts, LANGUAGE)
    return {
        "within_s": WITHIN_S,
        "clips": len(clips),
        "all": score([pair for rows in pairs.values() for pair in rows]),
        "conditions": {name: score(rows) for name, rows in sorted(pairs.items())},
        "wer": rates["wer"],
        "cer": rates["cer"],
    }
