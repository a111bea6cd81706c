"""What the commands share: exit codes, and errors without tracebacks."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, TextIO

from analysis.errors import TraceError

PIPE_WIDTH = 120


class Exit(IntEnum):
    """Exit codes of `python -m analysis` and its commands."""

    OK = 0
    REGRESSION = 1
    USAGE = 2
    NOISY = 3
    NOT_COMPARABLE = 4
    STORAGE = 5
    TRACE = 6
    UNEXPECTED = 70  # EX_SOFTWARE: an error of this program; never 1, which would read as a regression
    INTERRUPTED = 130


class OutputLost(Exception):
    """What a command found can't be printed, for a full disk, say."""


def parser(command: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that keeps the line breaks of its epilog."""
    name = f"python -m analysis {command}".rstrip()
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=name, description=description, epilog=epilog, formatter_class=form)


def fail(message: object, hint: str, code: Exit) -> Exit:
    """Say what was found and what to do about it on stderr; the code tells even where that is full."""
    with suppress(OSError):
        print(f"error: {message}", file=sys.stderr)
        if hint:
            print(f"  try: {hint}", file=sys.stderr)
    return code


def fail_unexpected() -> Exit:
    """Print the traceback of the exception being handled."""
    with suppress(OSError):
        traceback.print_exc()
    return fail("this is an error of the analysis, not a finding", "report the lines above", Exit.UNEXPECTED)


def fail_trace(error: TraceError) -> Exit:
    return fail(error, error.hint, Exit.TRACE)


def fail_storage(error: OSError, where: object, hint: str) -> Exit:
    """`hint` says where else to write."""
    return fail(f"can't write to {where}: {error.strerror or error}", hint, Exit.STORAGE)


def say(text: object, *, on_stderr: bool = False) -> None:
    """A line or more on stdout. If its reader (`head`, say) has gone, the rest goes nowhere: what a command
    found, and not who listened, decides its exit code. Raises OutputLost where it can't be written at all."""
    stream = sys.stderr if on_stderr else sys.stdout
    with _writing(stream):
        print(text, file=stream, flush=True)


@contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # what is left in the buffer goes nowhere, or Python fails again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputLost(error.strerror or str(error)) from None


def print_json(value: Any) -> None:
    """One JSON document on stdout; what is no number becomes null, for JSON has no NaN."""
    say(json.dumps(_plain(value), indent=1, ensure_ascii=False))


def print_tables(*parts: Any) -> None:
    """Rich renderables on stdout; tables are not squeezed where there is no terminal to fit."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    # rich itself would end a closed pipe in code 1; even captured, it writes nothing at all to the file
    with _writing(sys.stdout), console.capture() as captured:
        for part in parts:
            console.print(part)
    say(captured.get().removesuffix("\n"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):  # numpy's scalars
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
