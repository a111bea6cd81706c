"""The command line: what can be asked for, what of it goes together, and problems as messages.

The commands that measure the pipeline use it, too. Importable without torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.transcribe.transcriber import DEVICES, SCOPE, TASKS
from experiments.transcribe.writers import FORMATS, WITH_WORDS
from harness import usage
from harness.errors import ExitCode, UserError
from harness.processes import terminate_like_interrupt

WORDS_ARE_IN = " and ".join(WITH_WORDS)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `format` is a list of different ones."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--" in given:  # which files that begin with a dash follow; intermixed arguments don't know it
        end = given.index("--")
        given[end:] = [os.path.join(".", one) if one[:1] == "-" != one else one for one in given[end + 1 :]]
    options = _parser().parse_intermixed_args(given)  # a file may follow --out FOLDER
    options.format = list(dict.fromkeys(options.format or ["txt"]))
    return options


def check(options: argparse.Namespace) -> None:
    """Refuse a folder that was meant as a file (UserError). Options without effect are said, and undone: they
    make no other outputs."""
    if options.out and options.out.suffix.lstrip(".") in FORMATS and not options.out.is_dir():
        raise UserError(
            f"--out {options.out} looks like a file, and the texts go into a folder",
            f"--out FOLDER, or without it, for one sound and format: > {options.out}",
        )
    if options.word_timestamps and not set(options.format) & set(WITH_WORDS):
        options.word_timestamps = False
        shown = " and ".join(options.format)
        note(f"--word-timestamps has no effect on {shown}; the times of words are in {WORDS_ARE_IN}")
    if options.force and not options.out:
        note("--force has no effect without --out: nothing is skipped then")


def note(text: str) -> None:
    """What is no error, for who watches."""
    print(f"note: {text}", file=sys.stderr)


def guarded(command: Callable[[], object]) -> int:
    """Run `command`; its exit code. What goes wrong is said on standard error, without a traceback."""
    try:
        with terminate_like_interrupt():
            command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as problem:
        error = explain(problem)
        print(error.report(), file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def explain(problem: Exception) -> UserError:
    """Whatever stopped a command as something to tell its user."""
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename else ""
        return UserError(f"{where}{problem.strerror or problem}", exit_code=ExitCode.STORAGE)
    out_of_memory = type(problem).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(problem)
    if out_of_memory or isinstance(problem, MemoryError):
        reason = next(iter(str(problem).splitlines()), "")
        return UserError(f"out of memory: {reason}", "a smaller --batch or --model", ExitCode.MACHINE)
    return usage.explain(problem)


def _folder(given: str) -> Path:
    if not given:
        raise argparse.ArgumentTypeError("'' names no folder; . is the one where you are")
    return Path(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.transcribe",
        description="Transcribe sound files of any length, rate and number of channels. For example: "
        "python -m experiments.transcribe talk.mp3 interviews/ --format srt --format json --out texts",
        epilog="With --out, files that are done already, from the same sound with the same settings, are "
        "skipped, and the text of another sound is not overwritten. A file that can't be used does not stop "
        "the others. Exit codes: 0 all done, 2 usage, 3 a sound file or model that can't be used, 4 machine, "
        "5 output folder, 130 interrupted.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE|FOLDER|-",
        help="sound: files, folders (all sound files in them, not their subfolders), - for standard input",
    )
    parser.add_argument(
        "--format", action="append", choices=FORMATS, help="may be given more than once (default: txt)"
    )
    parser.add_argument(
        "--out",
        type=_folder,
        metavar="FOLDER",
        help="made if need be; gets NAME.FORMAT for each sound and format (default: standard output, for one "
        "format, and one sound if that is not txt)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="transcribe what is done already, too, and overwrite the texts of other sounds",
    )
    parser.add_argument(
        "--model",
        default="bundled",
        help="bundled (default; English), the folder of a Whisper checkpoint, or its name on the hub, like "
        "openai/whisper-small",
    )
    parser.add_argument(
        "--scope",
        default=SCOPE,
        help="the way the decoder runs, which changes the speed: one of conf/scope (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="windows of 30 s that are decoded at once (default: 1)",
    )
    parser.add_argument(
        "--long-form",
        choices=("sequential", "cut"),
        help="how files of more than 30 s are taken. sequential: window after window, each from where the "
        "text of the one before ends (default with --batch 1); cut: cut at silences, and the pieces decoded "
        "side by side (default with larger batches)",
    )
    parser.add_argument(
        "--previous-tokens",
        type=int,
        default=0,
        metavar="N",
        help="prompt each window with up to N tokens of the text before, sequential only (default: 0, with "
        "which the bundled model does best; openai-whisper's condition_on_previous_text is 223)",
    )
    parser.add_argument(
        "--language",
        default="en",
        metavar="CODE",
        help="of what is spoken; it is not detected (default: %(default)s)",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default="transcribe",
        help="translate: into English, with a model that was trained for it (default: %(default)s)",
    )
    parser.add_argument(
        "--word-timestamps",
        action="store_true",
        help=f"also the times of each word, in {WORDS_ARE_IN}",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="on a GPU compile the encoder, as --scope optimized does in its benchmark: 20 s more at the "
        "start, half a millisecond less for each window, so that it pays for some hundred hours of sound",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="auto (default): the GPU if there is one",
    )
    return parser
