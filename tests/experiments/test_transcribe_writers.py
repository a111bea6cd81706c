"""Each format, read back by a parser that is not ours."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re

import pytest
import srt
import webvtt

from experiments.transcribe.results import Segment, Transcript, Word
from experiments.transcribe.writers import FORMATS


def segment(start: float, end: float, text: str, *words: Word) -> Segment:
    return Segment(start, end, text, (1, 2), 0.0, -0.1, 1.0, 0.01, words)


AWKWARD = Transcript(
    "a.wav",
    "en",
    7300.0,
    (
        segment(0.0, 1.9996, " One & <two>."),
        segment(1.9996, 2.0, ""),
        segment(61.5, 61.5, " Three --> four\n\nfive\t6 ünïcode 中."),
        segment(
            3661.25,
            7299.999,
            " Done now.",
            Word(" Do", 3661.25, 3662.0, 0.9),
            Word("ne", 3662.0, 3663.0, 0.8),
            Word(" now.", 3662.0, 3664.0, 1.0),
        ),
    ),
)
EMPTY = Transcript("a.wav", "en", 1.0, ())


def test_txt() -> None:
    assert FORMATS["txt"](Transcript("a", "en", 3.0, AWKWARD.segments[:1])) == "One & <two>.\n"
    assert FORMATS["txt"](EMPTY) == ""


def test_srt() -> None:
    cues = list(srt.parse(FORMATS["srt"](AWKWARD)))
    assert [cue.index for cue in cues] == [1, 2, 3]
    assert [cue.content for cue in cues] == ["One & <two>.", "Three -> four five 6 ünïcode 中.", "Done now."]
    assert [cue.start.total_seconds() for cue in cues] == [0.0, 61.5, 3661.25]
    assert cues[1].end > cues[1].start, "a cue that takes no time is shown by nobody"
    assert list(srt.parse(FORMATS["srt"](EMPTY))) == []


def test_vtt() -> None:
    cues = list(webvtt.from_string(FORMATS["vtt"](AWKWARD)))
    assert [cue.start for cue in cues] == ["00:00:00.000", "00:01:01.500", "01:01:01.250"]
    assert cues[0].raw_text == "One &amp; &lt;two&gt;."
    assert cues[1].raw_text == "Three --&gt; four five 6 ünïcode 中."
    assert re.findall("<([0-9:.]+)>", cues[2].raw_text) == ["01:01:02.000"], "times ascend inside the cue"
    assert cues[2].text == "Done now." and "<01:01:02.000>" in cues[2].raw_text
    assert list(webvtt.from_string(FORMATS["vtt"](EMPTY))) == []


def test_json() -> None:
    found = json.loads(FORMATS["json"](AWKWARD))
    assert found["segments"][0]["text"] == " One & <two>."
    assert found["segments"][0]["tokens"] == [1, 2]
    assert found["segments"][3]["words"][1] == {
        "word": "ne",
        "start": 3662.0,
        "end": 3663.0,
        "probability": 0.8,
    }
    assert (found["language"], found["duration"]) == ("en", 7300.0)
    with pytest.raises(ValueError):
        FORMATS["json"](Transcript("a", "en", float("nan"), ()))


def test_tsv() -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["tsv"](AWKWARD)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == {"start": "0", "end": "2000", "text": "One & <two>."}
    assert rows[2]["text"] == "Three --> four five 6 ünïcode 中."


def test_json_has_null_for_what_overflowed() -> None:
    word = Word(" a", 0.0, 1.0, math.nan)
    overflowed = dataclasses.replace(segment(0.0, 1.0, " a", word), avg_logprob=-math.inf)
    (found,) = json.loads(FORMATS["json"](Transcript("a", "en", 1.0, (overflowed,))))["segments"]
    assert found["avg_logprob"] is None and found["words"][0]["probability"] is None
    assert found["start"] == 0.0 and found["no_speech_prob"] == 0.01
