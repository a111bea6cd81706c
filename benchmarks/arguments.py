"""Types of command-line arguments."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return value


def duration_s(text: str) -> float:
    """A number of seconds above 0, up to a day."""
    value = float(text)
    if not 0 < value <= 86_400:  # nor NaN
        raise argparse.ArgumentTypeError("has to be above 0, and a day at most")
    return value
