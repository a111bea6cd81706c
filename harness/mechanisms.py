"""The mechanisms that a configuration switches on, apart from what they work on and how they are measured."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from harness import usage

WHAT = ("name", "model", "audio", "max_new_tokens", "device")
HOW = ("measure", "trace", "capture", "compare_with", "hypothesis", "outputs", "dry_run", "resume")


def of(cfg: Any) -> dict[str, Any]:
    """The mechanisms of a run's configuration by dotted name, like `graphs.how`.

    A run from before there was a setting had what is its default now.
    """
    return _settings(OmegaConf.load(usage.CONF / "config.yaml")) | _settings(cfg)


def of_scope(scope: str) -> dict[str, Any] | None:
    """The mechanisms of a scope as its file has them; None if there is no such file: a run can be given any
    name."""
    # The command knows further folders of scopes, if it was given some.
    known = GlobalHydra.instance().is_initialized()
    with nullcontext() if known else initialize_config_dir(str(usage.CONF), version_base="1.3"):
        try:
            return of(compose("config", overrides=[f"+scope={scope}"]))
        except HydraException:
            return None


def _settings(tree: Any) -> dict[str, Any]:
    names = (name for name in usage.keys(tree) if name.partition(".")[0] not in (*WHAT, *HOW))
    found = {name: OmegaConf.select(tree, name) for name in names}
    return {name: value for name, value in found.items() if not isinstance(value, DictConfig)}
