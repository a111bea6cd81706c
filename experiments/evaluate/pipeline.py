"""The same clips through transformers' pipeline, as anyone else would run them."""

from __future__ import annotations

from typing import Any

from transformers import pipeline

from experiments.audio import SAMPLE_RATE_HZ
from experiments.evaluate.subject import Skipped, Subject


def measure(subject: Subject, texts: dict[str, str]) -> dict[str, Any]:
    """How many clips have exactly the text that the project's own decoder gave, and the others' texts.

    The pipeline is greedy here (`num_beams=1`); by itself it searches with five beams. Clips of one window.
    """
    clips = subject.one_window()
    try:
        recognise = pipeline(
            "automatic-speech-recognition",
            model=subject.model if subject.folder is None else str(subject.folder),
            device=subject.device,
            dtype=subject.loaded.model.dtype,
        )
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0].replace(str(subject.folder), "the folder")
        raise Skipped(f"transformers makes no pipeline of it ({reason})") from None
    differences = []
    for clip in clips:
        sound = {"raw": clip.samples, "sampling_rate": SAMPLE_RATE_HZ}
        arguments = {"num_beams": 1, **subject.language_arguments}
        text = recognise(sound, generate_kwargs=arguments)["text"].strip()
        if text != texts[clip.source]:
            differences.append({"source": clip.source, "project": texts[clip.source], "transformers": text})
    same = len(clips) - len(differences)
    return {"clips": len(clips), "same": same, "share": same / len(clips), "differences": differences}
