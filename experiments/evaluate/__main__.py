"""Evaluate a Whisper checkpoint: python -m experiments.evaluate [--model FOLDER] [--audio FOLDER]"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ExitCode, UserError, not_installed

try:
    from rich.console import RenderableType
    from rich.markup import escape
except ModuleNotFoundError as missing:
    not_installed(missing)

from experiments.audio import sound_files
from experiments.bundled import CHECKPOINT, HELD_OUT
from harness import environment
from harness.record import check_writable, write_json
from harness.report import screen

if TYPE_CHECKING:
    from experiments.evaluate.subject import Subject

# Of a checkpoint's folder; what describes it is none of the model.
DESCRIPTIONS = ("README.md", "evaluation.json", "training.json", "curve.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON if asked to; returns an exit code of the harness."""
    options = _parser().parse_args(arguments)
    try:
        if options.json:
            check_writable(options.json, "--json")
        found = evaluate(options.model, options.audio, options.device, screen().print)
        if options.json:
            write_json(options.json, found)
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(UserError(str(error), "another file for --json").report(), file=sys.stderr)
        return ExitCode.STORAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def evaluate(
    model: str, audio_path: Path, wanted_device: str, show: Callable[[RenderableType], None]
) -> dict[str, Any]:
    """All parts as a dict for JSON; `show` gets the tables as they come. A part that can't be measured has
    `skipped`, the reason. Raises UserError."""
    from transformers import logging as transformers_logging

    from experiments import models
    from experiments.evaluate import agreement, pipeline, robustness, tables, timestamps, words
    from experiments.evaluate.subject import Skipped, open_subject

    transformers_logging.disable_progress_bar()
    device = models.device_for(wanted_device)
    subject = open_subject(model, audio_path, device)
    transcripts = words.transcribe(subject)
    found = _made(subject, audio_path)
    show(f"{escape(found['model']['name'])} on {found['made']['machine']}, {found['model']['dtype']}\n")
    parts: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Any], Iterator[RenderableType]]]] = {
        "words": (lambda: words.measure(subject, transcripts.texts), tables.words),
        "timestamps": (lambda: timestamps.measure(subject), tables.timestamps),
        "draft": (lambda: agreement.measure(subject, transcripts.tokens), tables.draft),
        "transformers": (lambda: pipeline.measure(subject, transcripts.texts), tables.transformers),
        "robustness": (lambda: robustness.measure(subject), tables.robustness),
    }
    for name, (measure, table) in parts.items():
        try:
            found[name] = measure()
        except Skipped as reason:
            found[name] = {"skipped": str(reason)}
            show(f"[bold]{name}[/] skipped: {escape(str(reason))}\n")
            continue
        for item in table(found[name]):
            show(item)
    return found


def _made(subject: Subject, audio_path: Path) -> dict[str, Any]:
    """What was evaluated, where and when."""
    stamp = environment.stamp(subject.device)
    model = subject.loaded.model
    files = sorted(p for p in subject.folder.iterdir() if p.is_file()) if subject.folder else []
    return {
        "made": {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": stamp["machine"],
            "commit": stamp["git"]["commit"],
            "dirty": stamp["git"]["dirty"],
            "python": stamp["python"],
            "packages": stamp["packages"],
        },
        "model": {
            "name": _shown(subject.folder) if subject.folder else subject.model,
            "parameters": sum(p.numel() for p in model.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            "files": {p.name: p.stat().st_size for p in files if p.name not in DESCRIPTIONS},
            "sha256": {p.name: _sha256([p]) for p in files if p.suffix == ".safetensors"},
        },
        "audio": {
            "name": _shown(audio_path),
            "clips": len(subject.clips),
            "seconds": round(sum(clip.dur_s for clip in subject.clips), 1),
            "sha256": _sha256(sound_files(audio_path)),
        },
    }


def _sha256(files: Sequence[Path]) -> str:
    """Of the contents of all files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _shown(path: Path) -> str:
    """A path as it is in the project, or its last part: records name no folders of a machine."""
    path = path.expanduser().resolve()
    inside = path.is_relative_to(environment.PROJECT)
    return path.relative_to(environment.PROJECT).as_posix() if inside else path.name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate",
        description="Measure what a Whisper checkpoint gets right: words, times, its draft, silence, noise.",
    )
    parser.add_argument(
        "--model", default=str(CHECKPOINT), help="folder or hub name (default: the bundled checkpoint)"
    )
    parser.add_argument(
        "--audio",
        type=Path,
        default=HELD_OUT,
        help="file or folder of sound, words in .txt files beside it (default: the held-out clips)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", type=Path, help="write everything that was measured into this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
