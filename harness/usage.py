"""What can be typed: the scopes for --help, and whatever went wrong as one clear message."""

from __future__ import annotations

import difflib
import re
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from harness.environment import PROJECT
from harness.errors import ExitCode, UserError, interrupted

CONF = PROJECT / "conf"
PATHS = ("audio.path", "model.name", "model.path", "outputs")  # settings that are, or may be, paths


def register_resolvers() -> None:
    """What conf/ uses: ${harness.scopes:} for --help, ${harness.project:} for files of the project."""
    OmegaConf.register_new_resolver("harness.scopes", scopes_with_summaries, replace=True)
    OmegaConf.register_new_resolver("harness.project", lambda: str(PROJECT), replace=True)


def scopes_with_summaries() -> str:
    """One line per scope: its name and the first comment of its file."""
    files = sorted((CONF / "scope").glob("*.yaml"))
    width = max((len(f.stem) for f in files), default=0)
    return "\n".join(f"  {f.stem:{width}}  {_summary(f)}" for f in files)


def quote_paths(words: Sequence[str]) -> list[str]:
    """A command line whose paths Hydra reads as they are: quoted where it would take them for something else
    (`talk (1).flac`, `a,b.flac`, `2024`), if there is such a file, or can't read them at all."""
    return [_quoted(word) if word.lstrip("+").partition("=")[0] in PATHS else word for word in words]


def _quoted(word: str) -> str:
    key, _, path = word.partition("=")
    if path[:1] in ("'", '"'):
        return word
    try:
        read = OverridesParser.create().parse_override(word)
    except HydraException:
        pass
    else:
        if (not read.is_sweep_override() and read.value() == path) or not Path(path).exists():
            return word
    # Backslashes count only before a quotation mark.
    inside = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), path)
    return f"{key}='{inside}'"


def explain(error: Exception) -> UserError:
    """Any failure of the command outside a run as something to tell the user."""
    if interrupted(error):
        return UserError("interrupted", exit_code=ExitCode.INTERRUPTED)
    if isinstance(error, UserError):
        return error
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _misuse(error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return _no_choice()
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark):
        return UserError(f"{mark.name}, line {mark.line + 1}: {error.problem}", "the file as valid YAML")
    if isinstance(error, OSError | sqlite3.Error):
        return UserError(f"cannot write: {error}", "outputs=FOLDER", ExitCode.STORAGE)
    message = f"unexpected {type(error).__name__}: {_first_line(error)}"
    return UserError(message, _kept_traceback(error), ExitCode.BUG)


def _kept_traceback(error: Exception) -> str:
    """Where the traceback can be read: a file of its own, as there is no run folder yet."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="harness-", suffix=".log", delete=False) as log:
            traceback.print_exception(error, file=log)
    except OSError as problem:
        return f"set TMPDIR to a folder that is writable, for the traceback ({problem})"
    return f"see {log.name}"


def _misuse(error: Exception) -> UserError:
    """A Hydra or OmegaConf error as a UserError that names what is valid."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if error.options:
            return UserError(f"there is no {group} named {choice!r}", f"one of: {', '.join(error.options)}")
    if isinstance(error, OverrideParseException):
        return UserError(
            f"{error.override!r} can't be read as KEY=VALUE",
            """"KEY='VALUE'" where the value has blanks, brackets, commas or quotation marks""",
        )
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", _first_line(error))
    if unknown := re.match(r"Could not override '([^']+)'", text):
        return unknown_key(unknown[1].split("@")[0])
    if appended := re.match(r"Could not append to config. An item is already at '([^']+)'", text):
        return UserError(f"{appended[1]} has a value already", f"{appended[1]}=... without the +")
    if ambiguous := re.match(r"Ambiguous value for argument '([^']+)'", text):
        return UserError(f"{ambiguous[1]} has several values", f"-m {ambiguous[1]} for a sweep over them")
    cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
    return UserError(text + cause, "python -m harness --help")


def _no_choice() -> UserError:
    """The complaint about model=null or audio=5, of which Hydra doesn't say which it was."""
    words = [word for word in sys.argv[1:] if word.lstrip("+").partition("=")[0] in groups()]
    given = [o.input_line for o in OverridesParser.create().parse_overrides(words) if not _is_choice(o)]
    return UserError(
        f"{', '.join(map(str, given))} is not one of the group's choices",
        "python -m harness --help, which lists groups and choices",
    )


def _is_choice(override: Override) -> bool:
    return override.is_sweep_override() or isinstance(override.value(), str | list)


def groups() -> list[str]:
    """The groups of choices: folders of conf/."""
    return [folder.name for folder in CONF.iterdir() if folder.is_dir()]


def unknown_key(key: str) -> UserError:
    """The complaint about a setting that does not exist, with those that are nearly called so."""
    if key == "scope":
        return UserError("a scope is added, not overridden", "+scope=NAME, with a plus")
    known = groups() + list(keys(OmegaConf.load(CONF / "config.yaml")))
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.7)
    return UserError(
        f"there is no setting named {key!r}",
        f"{' or '.join(near)}" if near else f"one of: {', '.join(k for k in known if '.' not in k)}",
    )


def keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings in a configuration."""
    for name in tree:
        if prefix or name not in ("defaults", "hydra"):
            yield prefix + name
            if isinstance(tree[name], DictConfig):
                yield from keys(tree[name], f"{prefix}{name}.")


def _summary(file: Path) -> str:
    comments = [line[1:].strip() for line in file.read_text().splitlines() if line.startswith("#")]
    return next((c for c in comments if not c.startswith("@package")), "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
