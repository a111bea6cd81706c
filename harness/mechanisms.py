"""The mechanisms that a configuration switches on, apart from what they work on and how they are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from harness.usage import CONF

WHAT = ("name", "model", "audio", "max_new_tokens", "device")
HOW = ("measure", "trace", "capture", "compare_with", "hypothesis", "outputs", "dry_run", "resume")
_OF_HYDRA = ("defaults", "hydra")


def of(cfg: Any) -> dict[str, Any]:
    """The mechanisms of a run's configuration by dotted name, like `graphs.how`.

    A run from before there was a setting had what is its default now.
    """
    return dict(_leaves(OmegaConf.load(CONF / "config.yaml"))) | dict(_leaves(cfg))


def of_scope(scope: str) -> dict[str, Any] | None:
    """The mechanisms of a scope as its file has them; None if there is no such file: a run can be given any
    name."""
    # The command knows further folders of scopes, if it was given some.
    known = GlobalHydra.instance().is_initialized()
    with nullcontext() if known else initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return of(compose("config", overrides=[f"+scope={scope}"]))
        except HydraException:
            return None


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if prefix or name not in (*WHAT, *HOW, *_OF_HYDRA):
            if isinstance(value, Mapping):
                yield from _leaves(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value
