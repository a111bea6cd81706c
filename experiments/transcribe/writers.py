"""Transcripts as text, subtitles (SubRip, WebVTT), JSON and tab-separated values.

JSON (but for `seek`) and TSV have the fields that openai-whisper's have, so that what reads those reads
these.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from experiments.transcribe.results import Segment, Transcript


def txt(transcript: Transcript) -> str:
    """One line a segment."""
    return "".join(f"{segment.text.strip()}\n" for segment in transcript.segments)


def srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, times with a comma."""
    cues = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(_cues(transcript), start=1)
    )
    return "\n".join(cues)


def vtt(transcript: Transcript) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1): its characters & and < are escaped; each word has its time."""
    cues = (
        f"{_clock(segment.start, '.')} --> {_clock(_shown_end(segment), '.')}\n{_marked(segment)}\n"
        for segment in _spoken(transcript)
    )
    return "\n".join(["WEBVTT\n", *cues])


def tsv(transcript: Transcript) -> str:
    """start and end in whole milliseconds, text."""
    lines = (
        f"{round(s.start * 1000)}\t{round(s.end * 1000)}\t{' '.join(s.text.split())}\n"
        for s in transcript.segments
    )
    return "".join(["start\tend\ttext\n", *lines])


def as_json(transcript: Transcript) -> str:
    """Everything that is known of each segment; null for a number that overflowed."""
    segments = [
        {"id": number} | dataclasses.asdict(segment, dict_factory=_finite)
        for number, segment in enumerate(transcript.segments)
    ]
    for segment in segments:
        segment["words"] = [{"word": word.pop("text"), **word} for word in segment["words"]]
    whole = {
        "text": transcript.text,
        "language": transcript.language,
        "duration": transcript.dur_s,
        "segments": segments,
    }
    return json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _finite(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON has neither NaN nor infinity."""
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in fields}


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "srt": srt,
    "vtt": vtt,
    "json": as_json,
    "tsv": tsv,
}

WITH_WORDS = ("vtt", "json")  # formats that show the times of words


def _spoken(transcript: Transcript) -> Iterator[Segment]:
    return (segment for segment in transcript.segments if segment.text.strip())


def _cues(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """A subtitle's text may hold no arrow of its own and no empty line."""
    for segment in _spoken(transcript):
        yield segment.start, _shown_end(segment), " ".join(segment.text.split()).replace("-->", "->")


def _shown_end(segment: Segment) -> float:
    """A cue has to last: players drop those that end where they begin."""
    return max(segment.end, segment.start + 0.02)


def _marked(segment: Segment) -> str:
    if not segment.words:
        return _escaped(" ".join(segment.text.split()))
    # A time inside a cue has to lie between its ends, and behind the one before.
    pieces, latest = [_escaped(segment.words[0].text.lstrip())], segment.start
    for word in segment.words[1:]:
        text = _escaped(word.text)
        if latest < word.start < segment.end:
            text, latest = f"<{_clock(word.start, '.')}><c>{text}</c>", word.start
        pieces.append(text)
    return "".join(pieces)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    """HH:MM:SS.mmm"""
    ms = round(seconds * 1000)
    hours, ms = divmod(ms, 3_600_000)
    minutes, ms = divmod(ms, 60_000)
    whole, ms = divmod(ms, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{point}{ms:03d}"
