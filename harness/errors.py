"""What a user can do wrong, and the exit code that each kind of trouble ends with."""

import errno
import sqlite3
import sys
from enum import IntEnum
from typing import NoReturn

from analysis import errors


class ExitCode(IntEnum):
    """Exit codes of every command of the harness."""

    OK = 0
    BUG = 1  # unexpected; the message says where the log is
    USAGE = 2  # unknown scope, model or override, or a bad value
    INPUT = 3  # audio or model files
    MACHINE = 4  # no GPU for device=cuda, nsys missing or failing, no permission
    STORAGE = 5  # outputs not writable, disk full
    TRACE = 6  # the trace can't be analysed
    CHILD = 7  # a child process died
    INTERRUPTED = 130


class UserError(Exception):
    """A problem that the user can mend: printed as one message and a hint, without a traceback."""

    def __init__(self, message: str, hint: str = "", exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = ExitCode(exit_code)

    def report(self) -> str:
        """The text that a command prints on stderr."""
        return f"error: {self}" + (f"\n  try: {self.hint}" if self.hint else "")


def not_installed(missing: ModuleNotFoundError) -> NoReturn:
    """End a command that another Python than that of the project's environment was asked to run."""
    error = UserError(*errors.not_installed(missing), ExitCode.MACHINE)
    print(error.report(), file=sys.stderr)
    raise SystemExit(int(error.exit_code))


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what an error came of: cut short, OmegaConf raises errors of its own."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or interrupted(error.__context__))


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or the user's share of it, has no space left."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
