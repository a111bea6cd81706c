"""The one error that analysis raises on purpose, and what to say where its packages are missing."""

import sys


class TraceError(Exception):
    """A trace that can't be analysed: what was found (`str(error)`) and what to do about it (`hint`)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def not_installed(missing: ModuleNotFoundError) -> tuple[str, str]:
    """What was found and what to do, for a command that a Python without the packages was asked to run."""
    return (
        f"{sys.executable} has no {missing.name}, which is in the project's environment",
        "make run, which sets it up, and then .venv/bin/python in place of python",
    )
