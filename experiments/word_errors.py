"""Word and character error rates of transcripts, by jiwer.

WER is (substitutions + deletions + insertions) / words of the references, with counts summed over all clips
before dividing; CER is the same over characters, spaces included. Hypothesis and reference first go through
Whisper's own normaliser (appendix C of arXiv:2212.04356), so that punctuation, case and the spelling of
numbers are no errors. Its table of British and American spellings comes with checkpoints, not with
transformers: it is left empty, so that the same text has the same error rate under every model.

Importable without transformers, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jiwer

LISTED = 3  # clips shown with their alignment
LINES = 4  # of an alignment, those with an error in them
LINE_WIDTH = 100

Pair = tuple[str, str]  # hypothesis, reference


@dataclass(frozen=True)
class ErrorCounts:
    """Rates as shares (0.05: five per cent), None over references that hold no words.

    words, characters: of the references; substitutions, deletions, insertions: of words.
    """

    wer: float | None
    cer: float | None
    words: int
    characters: int
    substitutions: int
    deletions: int
    insertions: int


def count_errors(pairs: Sequence[Pair]) -> ErrorCounts:
    """Errors over all (hypothesis, reference) pairs, split into words at white space; nothing is normalised.

    Words heard where the reference is empty are insertions like any others.
    """
    hypotheses, references = [hypothesis for hypothesis, _ in pairs], [reference for _, reference in pairs]
    words = jiwer.process_words(references, hypotheses)
    characters = jiwer.process_characters(references, hypotheses)
    word_count, character_count = (sum(map(len, output.references)) for output in (words, characters))
    return ErrorCounts(
        wer=words.wer if word_count else None,
        cer=characters.cer if character_count else None,
        words=word_count,
        characters=character_count,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
    )


def normalizer_for(language: str) -> Callable[[str], str]:
    """Whisper's normaliser for a language code: its own for English, the basic one for all others."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer({}) if language == "en" else BasicTextNormalizer()


def clip_pairs(transcripts: Sequence[Mapping[str, Any]]) -> dict[str, Pair]:
    """Hypothesis and reference of each clip (by `source`) that has a reference, windows joined in order."""
    pairs: dict[str, Pair] = {}
    for window in sorted(transcripts, key=lambda window: window["window"]):
        if window["reference"] is not None:
            before, _ = pairs.get(window["source"], ("", ""))
            pairs[window["source"]] = (f"{before} {window['text']}".strip(), window["reference"])
    return pairs


def of_transcripts(transcripts: Sequence[Mapping[str, Any]], language: str) -> dict[str, Any]:
    """Error rates of a workload's transcripts, as `harness.workload.Workload.word_errors` describes them."""
    pairs = {} if any(window["text"] is None for window in transcripts) else clip_pairs(transcripts)
    normalize = normalizer_for(language)
    normal = {source: (normalize(heard), normalize(spoken)) for source, (heard, spoken) in pairs.items()}
    counts = count_errors(list(normal.values()))
    return asdict(counts) | {
        "clips": len(normal),
        "clips_without_reference": len({t["source"] for t in transcripts if t["reference"] is None}),
        "library": "jiwer",
        "normalizer": type(normalize).__name__,
        "worst": _worst(normal),
        "why": _why_undefined(transcripts, counts),
    }


def _why_undefined(transcripts: Sequence[Mapping[str, Any]], counts: ErrorCounts) -> str | None:
    if counts.words:
        return None
    if any(window["text"] is None for window in transcripts):
        return "this model has random weights and no vocabulary, so it gives token ids and no words"
    if all(window["reference"] is None for window in transcripts):
        return "no sound file has its words beside it, in a .txt of the same name"
    heard = f", and words heard where there are none: {counts.insertions}" if counts.insertions else ""
    return f"the references hold no words{heard}"


def _worst(pairs: Mapping[str, Pair]) -> list[dict[str, Any]]:
    """The clips with the most wrong words: `source`, `errors`, `words`, and the `alignment` as text."""
    clips = []
    for source, (hypothesis, reference) in pairs.items():
        output = jiwer.process_words(reference, hypothesis)
        errors = output.substitutions + output.deletions + output.insertions
        if errors:
            words = len(output.references[0])
            clip = {"source": source, "errors": errors, "words": words, "alignment": _alignment(output)}
            clips.append(clip)
    return sorted(clips, key=lambda clip: -clip["errors"])[:LISTED]


def _alignment(output: jiwer.WordOutput) -> str:
    """REF, HYP and marks (S, D, I) below each other; of the lines that hold an error, the first few."""
    text = jiwer.visualize_alignment(output, show_measures=False, line_width=LINE_WIDTH)
    lines = text.splitlines()[2:]  # the first two are a heading
    blocks = [lines[n : n + 3] for n in range(0, len(lines), 4)]  # an empty line follows each
    wrong = [block for block in blocks if block[2].strip()]
    rest = [f"... {len(wrong) - LINES} more lines with errors"] if len(wrong) > LINES else []
    return "\n".join([line.rstrip() for block in wrong[:LINES] for line in block] + rest)
