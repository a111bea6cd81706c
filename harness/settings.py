"""Which values settings may have: a table of rules, and one message for the first value that breaks one.

Hydra knows the names of settings, not their types; and OmegaConf's typed schemas would take 5 for a path,
know no ranges, and say what a value can't be converted to instead of what is valid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError


@dataclass(frozen=True)
class Rule:
    """`valid` completes "KEY=VALUE is not ..."; `holds` says whether a value is that."""

    valid: str
    holds: Callable[[Any], bool]

    def or_null(self) -> Rule:
        return Rule(f"{self.valid}, or null", lambda value: value is None or self.holds(value))


def whole(least: int) -> Rule:
    return Rule(f"a whole number of at least {least}", lambda value: type(value) is int and value >= least)


def one_of(*choices: str) -> Rule:
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def text(what: str, pattern: str = r"(?s).+") -> Rule:
    """Text that is `what` and fully matches `pattern` (default: not empty)."""
    return Rule(what, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)))


def is_number(value: Any) -> bool:
    """Whether a value is a number; YAML's true and false are none, though Python's are."""
    return isinstance(value, int | float) and not isinstance(value, bool)


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
FOLDER = text("the path of a folder")
POSITIVE = Rule("a number above 0", lambda value: is_number(value) and value > 0)


def check(cfg: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Hold `cfg` to `rules` (dotted key: rule); UserError for the first value that breaks its rule."""
    for key, rule in rules.items():
        value: Any = cfg
        path = key.split(".")
        for depth, name in enumerate(path):
            if not isinstance(value, Mapping):
                section = ".".join(path[:depth])
                raise UserError(f"{section}={_shown(value)} is not a section of settings", f"{key}=VALUE")
            value = value.get(name)
        if not rule.holds(value):
            raise UserError(f"{key}={_shown(value)} is not {rule.valid}")


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
