"""What can be typed: the scopes for --help, and Hydra's complaints as one clear message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from harness.environment import PROJECT
from harness.errors import UserError

CONF = PROJECT / "conf"


def scopes_with_summaries() -> str:
    """One line per scope: its name and the first comment of its file."""
    files = sorted((CONF / "scope").glob("*.yaml"))
    width = max((len(f.stem) for f in files), default=0)
    return "\n".join(f"  {f.stem:{width}}  {_summary(f)}" for f in files)


def no_scope() -> UserError:
    """The complaint about a command line that names no scope."""
    names = GlobalHydra.instance().config_loader().get_group_options("scope")
    return UserError("no scope was given", f"+scope=NAME with one of: {', '.join(names)}")


def explain(error: Exception) -> UserError:
    """A Hydra or OmegaConf error as a UserError that names what is valid."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if error.options:
            return UserError(f"there is no {group} named {choice!r}", f"one of: {', '.join(error.options)}")
    text = str(error).strip()
    if unknown := re.match(r"Could not override '([^']+)'", text):
        return _unknown_key(unknown[1].split("@")[0])
    if appended := re.match(r"Could not append to config. An item is already at '([^']+)'", text):
        return UserError(f"{appended[1]} has a value already", f"{appended[1]}=... without the +")
    if ambiguous := re.match(r"Ambiguous value for argument '([^']+)'", text):
        return UserError(f"{ambiguous[1]} has several values", f"-m {ambiguous[1]} for a sweep over them")
    cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
    return UserError(_first_line(error) + cause, "python -m harness --help")


def _unknown_key(key: str) -> UserError:
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
    if key == "scope":
        return UserError("a scope is added, not overridden", "+scope=NAME, with a plus")
    known = groups + list(_keys(OmegaConf.load(CONF / "config.yaml")))
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.7)
    return UserError(
        f"there is no setting named {key!r}",
        f"{' or '.join(near)}" if near else f"one of: {', '.join(k for k in known if '.' not in k)}",
    )


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings in a configuration."""
    for name in tree:
        if prefix or name not in ("defaults", "hydra"):
            yield prefix + name
            if isinstance(tree[name], DictConfig):
                yield from _keys(tree[name], f"{prefix}{name}.")


def _summary(file: Path) -> str:
    comments = [line[1:].strip() for line in file.read_text().splitlines() if line.startswith("#")]
    return next((c for c in comments if not c.startswith("@package")), "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
