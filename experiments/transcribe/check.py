"""How far to trust the pipeline: python -m experiments.transcribe.check [--minutes 20] [--json FILE]

On the held-out clips of the bundled checkpoint, and on a long file made of them with silences between: word
errors of each format and of both ways to take long sound, how far the two and transformers' own `generate`
agree, whether times are in order, and what word timestamps cost.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jiwer
import soundfile
from rich.table import Table

from experiments import word_errors
from experiments.audio import SAMPLE_RATE_HZ
from experiments.bundled import HELD_OUT
from experiments.transcribe.command_line import guarded
from experiments.transcribe.joined import disorder, held_out, join
from experiments.transcribe.results import Transcript
from experiments.transcribe.transcriber import Transcriber
from experiments.transcribe.writers import FORMATS
from harness import environment
from harness.record import check_writable, code_label, write_json
from harness.report import screen

LANGUAGE = "en"
TOLD = (60, 120, 223)  # of the text before; 120 are the most that the bundled model was trained with
BATCH = 8
MODES: dict[str, dict[str, Any]] = {
    "sequential": {"batch": BATCH, "sequential": True},
    "cut": {"batch": BATCH, "sequential": False},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked to; returns an exit code of the harness."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.transcribe.check",
        description="Measure the pipeline with the bundled checkpoint: word errors of its formats and of "
        "both ways to take long sound, beside transformers' own. Takes minutes.",
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=20, help="of the long file, about (default: %(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured into this file")
    options = parser.parse_args(arguments)
    return guarded(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    if options.json:
        check_writable(options.json, "--json")
    found = {"clips": clips(), "joined": joined(options.minutes * 60)}
    for name, part in found.items():
        screen().print(_table(name, part))
    if options.json:
        write_json(options.json, {"made": _made()} | found)


def _minutes(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError("has to be a number above 0")


def clips() -> dict[str, Any]:
    """The held-out clips, each a file: error rates by mode and by format, and agreement with transformers."""
    from experiments.transcribe import longform_reference

    given = held_out()
    files = [HELD_OUT / clip.source for clip in given]
    spoken = {clip.source: clip.reference or "" for clip in given}
    transcribed, cpu_s = {}, {}
    for mode, how in MODES.items():
        transcribed[mode], cpu_s[mode] = _transcribe(files, **how)
    _transcribe(files[:1], word_timestamps=True)  # compiles
    _, cpu_s["cut, words"] = _transcribe(files, **MODES["cut"], word_timestamps=True)
    texts = {mode: {name: t.text for name, t in one.items()} for mode, one in transcribed.items()}
    for format_, read in READERS.items():
        texts[format_] = {name: read(FORMATS[format_](t)) for name, t in transcribed["cut"].items()}
    theirs = longform_reference.texts(given)
    return {
        "wer": {
            name: _errors(one, spoken)["wer"] for name, one in (texts | {"transformers": theirs}).items()
        },
        "cpu_s": cpu_s,
        "words_cost": cpu_s["cut, words"] / cpu_s["cut"] - 1,
        "sequential_against_cut": _errors(texts["sequential"], texts["cut"])["wer"],
        "same_as_transformers": {mode: 1 - _errors(texts[mode], theirs)["wer"] for mode in MODES},
    }


def joined(dur_s: float) -> dict[str, Any]:
    """One long file, made of the clips: the same, and what is lost or said twice in a row."""
    from experiments.transcribe import longform_reference

    long = join(held_out(), dur_s)
    texts, orders, cpu_s = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "joined.flac"
        soundfile.write(file, long.samples, SAMPLE_RATE_HZ)
        ways: dict[str, dict[str, Any]] = {
            "sequential": {},
            "cut": MODES["cut"],
            "as Whisper": {"verify_silence": False},
        }
        ways |= {f"told {count} tokens": {"previous_tokens": count} for count in TOLD}
        for mode, how in ways.items():
            transcripts, cpu_s[mode] = _transcribe([file], **how)
            texts[mode] = transcripts[file.name].text
            orders[mode] = disorder(transcripts[file.name].segments)
    texts["transformers"] = longform_reference.text(long.samples)
    errors = {name: _errors({"": text}, {"": long.reference}) for name, text in texts.items()}
    return {
        "dur_s": len(long.samples) / SAMPLE_RATE_HZ,
        "wer": {name: one["wer"] for name, one in errors.items()},
        "most_words_lost_in_a_row": {name: one["lost"] for name, one in errors.items()},
        "most_words_added_in_a_row": {name: one["added"] for name, one in errors.items()},
        "times_out_of_order": orders,
        "cpu_s": cpu_s,
        "sequential_against_cut": _errors({"": texts["sequential"]}, {"": texts["cut"]})["wer"],
        "same_as_transformers": {
            mode: 1 - _errors({"": texts[mode]}, {"": texts["transformers"]})["wer"] for mode in ways
        },
    }


def _transcribe(files: Sequence[Path], **how: Any) -> tuple[dict[str, Transcript], float]:
    """Transcripts by file name, and the seconds of processor time that they took."""
    transcriber = Transcriber(**how)
    began = time.process_time()
    outcomes = list(transcriber.many(files))
    cpu_s = time.process_time() - began
    found = {}
    for outcome in outcomes:
        if outcome.transcript is None:
            raise outcome.error or AssertionError(outcome.path)
        found[outcome.path.name] = outcome.transcript
    return found, cpu_s


def _made() -> dict[str, str]:
    stamp = environment.stamp("cpu")
    code = code_label(stamp["git"]["commit"], stamp["git"]["dirty"])
    return {"machine": stamp["machine"], "date": datetime.now(UTC).date().isoformat(), "code": code}


def _errors(heard: Mapping[str, str], spoken: Mapping[str, str]) -> dict[str, Any]:
    """wer over all texts; lost, added: most words in a row that are missing or too many."""
    normal = word_errors.normalizer_for(LANGUAGE)
    output = jiwer.process_words([normal(t) for t in spoken.values()], [normal(heard[n]) for n in spoken])
    chunks = [chunk for alignment in output.alignments for chunk in alignment]
    lost = (c.ref_end_idx - c.ref_start_idx for c in chunks if c.type == "delete")
    added = (c.hyp_end_idx - c.hyp_start_idx for c in chunks if c.type == "insert")
    return {"wer": output.wer, "lost": max(lost, default=0), "added": max(added, default=0)}


def _table(name: str, found: Mapping[str, Any]) -> Table:
    """Rows of one part: what, of which, value."""
    table = Table("measured", "of", "value", title=name, title_justify="left")
    for what, value in found.items():
        for of, one in value.items() if isinstance(value, dict) else [("", value)]:
            table.add_row(what.replace("_", " "), of, f"{one:.4f}" if isinstance(one, float) else str(one))
    return table


def _srt(text: str) -> str:
    import srt

    return " ".join(cue.content for cue in srt.parse(text))


def _vtt(text: str) -> str:
    import webvtt

    return " ".join(cue.text for cue in webvtt.from_string(text).captions)


def _tsv(text: str) -> str:
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return " ".join(row["text"] for row in rows)


READERS: dict[str, Callable[[str], str]] = {
    "txt": lambda text: " ".join(text.split()),
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": lambda text: str(json.loads(text)["text"]),
}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main())
