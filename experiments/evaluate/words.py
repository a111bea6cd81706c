"""Word and character error rates of the project's own greedy decoder, over all clips and by condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments import word_errors
from experiments.evaluate.subject import LANGUAGE, Subject


@dataclass(frozen=True)
class Transcripts:
    """texts: by clip, windows joined; tokens: of each window of each clip, without prompt and end."""

    texts: dict[str, str]
    tokens: dict[str, list[list[int]]]


def transcribe(subject: Subject) -> Transcripts:
    """Greedy, every window by itself, without timestamps."""
    tokens = {
        clip.source: [subject.greedy(subject.features(window[None])) for window in clip.windows()]
        for clip in subject.clips
    }
    texts = {
        source: " ".join(filter(None, (subject.loaded.text(window) for window in windows)))
        for source, windows in tokens.items()
    }
    return Transcripts(texts, tokens)


def measure(subject: Subject, texts: dict[str, str]) -> dict[str, Any]:
    """`all`, and `conditions` by name, each as `word_errors.of_transcripts` has it (None where there are no
    references); `texts` by clip."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for clip in subject.clips:
        row = {"source": clip.source, "window": 0, "text": texts[clip.source], "reference": clip.reference}
        groups.setdefault("all", []).append(row)
        if truth := subject.truth.get(clip.source):
            groups.setdefault(f"condition {truth.condition}", []).append(row)
    rates = {name: word_errors.of_transcripts(rows, LANGUAGE) for name, rows in sorted(groups.items())}
    conditions = {name.removeprefix("condition "): r for name, r in rates.items() if name != "all"}
    for one in conditions.values():
        del one["worst"]  # they stand with all clips already
    return {"all": rates["all"], "conditions": conditions, "texts": texts}
