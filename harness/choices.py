"""The files of conf/ that a command chose: what is wrong in them or can't be set beside them.

Hydra holds the command line to the settings that exist, but takes whatever a scope's file adds to them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from harness import usage
from harness.errors import UserError

PACKAGE = "# @package _global_"


def check(cfg: DictConfig) -> None:
    """Refuse a scope's file with mistakes, a reference that can't exist and a name that isn't the model's;
    raises UserError. To be called in a job of Hydra's, with the job's configuration, checked."""
    chosen = HydraConfig.get().runtime.choices
    scopes = chosen.get("scope") or []
    own: set[str] = set()
    for scope in scopes if isinstance(scopes, list | ListConfig) else [scopes]:
        own |= _check_scope(scope)
    for key in _added(cfg):  # by a plus on the command line
        if _section(key) not in own:
            raise usage.unknown_key(key)
    _check_reference(cfg)
    _check_model(cfg.get("model") or {}, chosen.get("model"))


def nameless() -> UserError:
    """The complaint about a configuration without a name, which it has from its scope's file."""
    scope = HydraConfig.get().runtime.choices.get("scope")
    if not scope:
        return UserError("no scope was given", f"+scope=NAME with one of: {', '.join(_scopes())}")
    if not isinstance(scope, str) or "scope" not in _composed(f"+scope={scope}"):
        return UserError(f"{_file(scope)} gives the scope no name", f"name: {_name(scope)}")
    return UserError(f"{_file(scope)} lacks its first line, {PACKAGE}")


def _check_scope(scope: str) -> set[str]:
    """Returns the sections of its own."""
    alone = _composed(f"+scope={scope}")
    if alone.name != _name(scope):
        raise UserError(f"{_file(scope)} has name: {alone.name}", f"name: {_name(scope)}, as the file's")
    defaults = OmegaConf.load(usage.CONF / "config.yaml")
    added = set(_added(alone))
    for key in added:
        # A workload of one's own has settings of its own, in sections of their own.
        if _section(key) in defaults or alone.workload == defaults.workload:
            problem = usage.unknown_key(key)
            raise UserError(f"{_file(scope)}: {problem}", problem.hint)
    return {_section(key) for key in added}


def _added(cfg: DictConfig) -> Iterator[str]:
    """Settings that are neither in conf/config.yaml nor in its groups."""
    known = set(usage.keys(OmegaConf.load(usage.CONF / "config.yaml")))
    for key in usage.keys(cfg):
        if key not in known and _section(key) not in usage.groups():
            yield key


def _section(key: str) -> str:
    return key.partition(".")[0]


def _check_reference(cfg: DictConfig) -> None:
    """A run can have any name: what is no scope may be the folder of such runs."""
    scope = cfg.compare_with
    if scope is None or scope in _scopes() or (Path(cfg.outputs) / scope).is_dir():
        return
    near = difflib.get_close_matches(scope, _scopes(), n=1)
    hint = f"compare_with={near[0]}" if near else f"one of: {', '.join(_scopes())}"
    raise UserError(f"compare_with={scope} is neither a scope nor the name of runs in {cfg.outputs}", hint)


def _check_model(model: Any, choice: Any) -> None:
    """A name by which nothing is loaded would only be another label of the same weights."""
    if not (model.get("path") or model.get("source") == "random"):
        return
    file = _composed(f"model={choice}").model
    given, own = (OmegaConf.to_container(one, resolve=True) for one in (model, file))
    if given != own and given == own | {"name": model.name}:  # type: ignore[operator]
        what = model.get("path") or "random weights"
        raise UserError(
            f"model.name={model.name} is not the name of model={choice}, which is {what}",
            f"model=whisper model.name={model.name}",
        )


def _composed(choice: str) -> DictConfig:
    """The configuration of one choice as its file has it."""
    return compose("config", overrides=[*_folders_given(), choice])


def _scopes() -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options("scope", config_name="config", overrides=_folders_given())


def _folders_given() -> list[str]:
    """Overrides by which Hydra finds more files; the folder of --config-dir it knows already."""
    return [given for given in HydraConfig.get().overrides.hydra if given.startswith("hydra.searchpath=")]


def _name(scope: str) -> str:
    return scope.rpartition("/")[2]


def _file(scope: str) -> str:
    """Where a scope's file lies, if in conf/ or the folder of --config-dir; else what it is."""
    folders = GlobalHydra.instance().config_loader().get_search_path().get_path()
    files = [Path(folder.path.removeprefix("file://")) / "scope" / f"{scope}.yaml" for folder in folders]
    return str(next((file for file in files if file.is_file()), f"scope {scope}"))
