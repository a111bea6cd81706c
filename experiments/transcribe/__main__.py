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

from experiments.transcribe.command_line import check, explain, note, parse
from experiments.transcribe.progress import Bar
from experiments.transcribe.reading import sound_files, standard_input
from experiments.transcribe.resume import Done, Target, check_names, place, targets
from experiments.transcribe.tally import Tally
from experiments.transcribe.transcriber import Transcriber
from experiments.transcribe.writers import FORMATS
from harness.errors import ExitCode, UserError
from harness.processes import terminate_like_interrupt

STDIN = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Transcribe, and return an exit code of the harness."""
    options = parse(arguments)
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
            error = explain(problem)
    print(error.report(), file=sys.stderr)
    return error.exit_code


def _run(options: argparse.Namespace) -> int:
    check(options)
    tally = Tally()
    with ExitStack() as stack:
        piped = stack.enter_context(standard_input()) if STDIN in options.inputs else None
        todo = targets(_sounds(options.inputs, piped, tally), piped)
        done = None
        if options.out:
            check_names(todo)
            done = Done(options.out, options.format, _settings(options))
        else:
            _check_standard_output(options.format, todo)
        if done and not options.force:
            todo = _not_done(todo, done, tally)
        if todo:
            _transcribe(options, todo, done, tally)
    tally.report(Console(stderr=True, soft_wrap=True, highlight=False), options.out)
    return tally.exit_code


def _not_done(wanted: Sequence[Target], done: Done, tally: Tally) -> list[Target]:
    """Those that are to be transcribed: not what is done, nor what would overwrite the text of another."""
    todo = []
    for target in wanted:
        if done.has(target):
            tally.skipped += 1
        elif problem := done.in_the_way(target):
            tally.fail(problem)
        else:
            todo.append(target)
    return todo


def _transcribe(options: argparse.Namespace, todo: list[Target], done: Done | None, tally: Tally) -> None:
    if options.long_form == "sequential" and options.batch > len(todo):
        note(f"--long-form sequential takes one window of each file at a time: --batch {len(todo)} would do")
    transcriber = Transcriber(
        options.model,
        scope=options.scope,
        batch=options.batch,
        sequential=options.long_form == "sequential" if options.long_form else None,
        language=options.language,
        task=options.task,
        word_timestamps=options.word_timestamps,
        previous_tokens=options.previous_tokens,
        compile_encoder=options.compile,
        device=options.device,
    )
    if options.compile and transcriber.device == "cpu":
        note("--compile has no effect on a CPU")
    console = Console(stderr=True, soft_wrap=True)
    bar = Bar([target.sound for target in todo], console)
    with bar.progress, tally.clock():
        outcomes = transcriber.many([target.sound for target in todo], bar.advance)
        for target, outcome in zip(todo, outcomes, strict=True):
            if outcome.transcript is None:
                problem = outcome.error or UserError(f"{outcome.path} was not transcribed")
                tally.fail(target.named(problem))
                continue
            tally.add(outcome.transcript)
            texts = {format_: FORMATS[format_](outcome.transcript) for format_ in options.format}
            if done:
                done.write(target, texts)
            else:
                sys.stdout.write(texts[options.format[0]])
                sys.stdout.flush()


def _sounds(inputs: Sequence[str], piped: Path | None, tally: Tally) -> list[Path]:
    """All files of all inputs, each once; an input that holds none is a failure of its own.

    piped: what stands for standard input.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        try:
            files = [piped] if given == STDIN and piped else _sound_files(given)
        except UserError as error:
            tally.fail(error)
        else:
            for file in files:
                found.setdefault(place(file), file)
    return list(found.values())


def _sound_files(given: str) -> list[Path]:
    """Those of a file or folder; UserError also for a name that the system can't look up."""
    if not given:  # Path would take it for the folder where we are
        raise UserError("'' names no sound", "files or folders of sound, or - for standard input")
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


def _check_standard_output(formats: Sequence[str], sounds: Sequence[Target]) -> None:
    if sys.stdout is None:
        raise UserError("there is no standard output to write to", "--out FOLDER", ExitCode.STORAGE)
    if len(formats) > 1:
        raise UserError(f"{' and '.join(formats)} don't go into one standard output", "--out FOLDER")
    if len(sounds) > 1 and formats != ["txt"]:
        raise UserError(
            f"{len(sounds)} files as {formats[0]} don't go into one standard output", "--out FOLDER"
        )


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of the libraries: theirs are not for who reads the text
    sys.exit(main())
