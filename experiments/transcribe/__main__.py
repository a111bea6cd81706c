"""Transcribe sound: python -m experiments.transcribe FILE|FOLDER|- ... [--format srt --out FOLDER]"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from experiments.transcribe.progress import Bar
from experiments.transcribe.reading import sound_files, standard_input
from experiments.transcribe.resume import Done, Target, targets
from experiments.transcribe.tally import Tally
from experiments.transcribe.transcriber import SCOPE, TASKS, Transcriber
from experiments.transcribe.writers import FORMATS
from harness import usage
from harness.errors import ExitCode, UserError
from harness.processes import terminate_like_interrupt

STDIN = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Transcribe, and return an exit code of the harness."""
    options = _parser().parse_args(arguments)
    with terminate_like_interrupt():
        try:
            return _run(options)
        except KeyboardInterrupt:
            again = "; the same command goes on from there" if options.out else ""
            print(f"interrupted: what is done is kept{again}", file=sys.stderr)
            return ExitCode.INTERRUPTED
        except BrokenPipeError:  # whoever reads the text has enough of it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        except OSError as problem:
            error = UserError(f"can't write ({problem})", "--out FOLDER with space in it", ExitCode.STORAGE)
        except Exception as problem:
            error = usage.explain(problem)
    print(error.report(), file=sys.stderr)
    return error.exit_code


def _run(options: argparse.Namespace) -> int:
    formats = list(dict.fromkeys(options.format or ["txt"]))
    tally = Tally()
    with ExitStack() as stack:
        sounds = _sounds(options.inputs, stack, tally)
        wanted = targets(sounds)
        if options.out is None:
            _check_standard_output(formats, sounds)
        done = Done(options.out, formats, _settings(options)) if options.out else None
        todo = [t for t in wanted if done is None or options.force or not done.has(t)]
        tally.skipped = len(wanted) - len(todo)
        if todo:
            _transcribe(options, formats, todo, done, tally)
    tally.report(Console(stderr=True, soft_wrap=True, highlight=False))
    return tally.exit_code


def _transcribe(
    options: argparse.Namespace, formats: list[str], todo: list[Target], done: Done | None, tally: Tally
) -> None:
    transcriber = Transcriber(
        options.model,
        scope=options.scope,
        batch=options.batch,
        sequential=options.long_form == "sequential" if options.long_form else None,
        language=options.language,
        task=options.task,
        word_timestamps=options.word_timestamps,
        previous_tokens=options.previous_tokens,
        device=options.device,
    )
    console = Console(stderr=True, soft_wrap=True)
    bar = Bar([target.sound for target in todo], console)
    with bar.progress, tally.clock():
        outcomes = transcriber.many([target.sound for target in todo], bar.advance)
        for target, outcome in zip(todo, outcomes, strict=True):
            tally.add(outcome)
            if outcome.transcript is None:
                continue
            texts = {format_: FORMATS[format_](outcome.transcript) for format_ in formats}
            if done:
                done.write(target, texts)
            else:
                sys.stdout.write(texts[formats[0]])
                sys.stdout.flush()


def _sounds(inputs: Sequence[str], stack: ExitStack, tally: Tally) -> list[Path]:
    """All files of all inputs, each once; an input that holds none is a failure of its own."""
    found: dict[Path, None] = {}
    for given in inputs:
        try:
            if given == STDIN:
                files = sound_files(stack.enter_context(standard_input()))
            else:
                files = _sound_files(given)
            found |= dict.fromkeys(files)
        except UserError as error:
            tally.fail(error)
    return list(found)


def _sound_files(given: str) -> list[Path]:
    """Those of a file or folder; UserError also for a name that the system can't look up."""
    try:
        return sound_files(Path(os.path.expanduser(given)))
    except OSError as problem:
        reason = problem.strerror or str(problem)
        hint = "files or folders of sound, or - for standard input"
        raise UserError(f"{given} can't be read ({reason})", hint, ExitCode.INPUT) from None


def _settings(options: argparse.Namespace) -> dict[str, object]:
    """What the outputs depend on beside the sound: other settings, other outputs."""
    names = ("model", "scope", "batch", "long_form", "language", "task", "word_timestamps", "previous_tokens")
    return {name: getattr(options, name) for name in names}


def _check_standard_output(formats: Sequence[str], sounds: Sequence[Path]) -> None:
    if len(formats) > 1:
        raise UserError(f"{' and '.join(formats)} don't go into one standard output", "--out FOLDER")
    if len(sounds) > 1 and formats != ["txt"]:
        raise UserError(
            f"{len(sounds)} files as {formats[0]} don't go into one standard output", "--out FOLDER"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.transcribe",
        description="Transcribe sound files of any length, rate and number of channels.",
        epilog="Files that are done already, from the same sound with the same settings, are skipped. One "
        "that can't be used does not stop the others. Exit codes: 0 all done, 2 usage, 3 a sound file or "
        "model that can't be used, 4 machine, 5 output folder, 130 interrupted.",
    )
    parser.add_argument("inputs", nargs="+", metavar="FILE|FOLDER|-", help="sound; - is standard input")
    parser.add_argument(
        "--format", action="append", choices=FORMATS, help="of the text; may be given again (default: txt)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the texts (default: standard output)")
    parser.add_argument("--force", action="store_true", help="also transcribe what is done already")
    parser.add_argument("--model", default="bundled", help="a choice of conf/model, a folder, or a hub name")
    parser.add_argument(
        "--scope", default=SCOPE, help="how it is decoded: a scope of conf/scope (%(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="windows that are decoded at once (default: 1)"
    )
    parser.add_argument(
        "--long-form",
        choices=("sequential", "cut"),
        help="sequential: window after window of each file, by its timestamps (default with --batch 1); cut: "
        "windows cut at silences, decoded side by side (default with larger batches)",
    )
    parser.add_argument(
        "--previous-tokens",
        type=int,
        default=0,
        metavar="N",
        help="how many tokens of the text before each window is told (default: 0, with which the bundled "
        "model does best; Whisper's own is 223)",
    )
    parser.add_argument("--language", default="en", help="code of the language spoken (%(default)s)")
    parser.add_argument("--task", choices=TASKS, default="transcribe", help="translate: into English")
    parser.add_argument("--word-timestamps", action="store_true", help="times of each word (json, vtt)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of the libraries: theirs are not for who reads the text
    sys.exit(main())
