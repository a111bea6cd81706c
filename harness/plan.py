"""From a composed configuration to everything that is known before a run starts."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import environment, workload
from harness.capture import capture_for
from harness.capture.base import Capture
from harness.errors import ExitCode, UserError

DEVICES = ("auto", "cuda", "cpu")
CAPTURES = ("auto", "nsys", "kineto", "none")
MEASURE_JSON = "measure.json"
TRACED_JSON = "traced.json"

# What a run's results don't depend on.
_NOT_FINGERPRINTED = ("outputs", "dry_run", "resume")
# What two runs must share for their tokens to be comparable.
_INPUTS = ("workload", "model", "audio", "max_new_tokens", "device")


@dataclass(frozen=True)
class Plan:
    """One run, checked: the configuration has its device and capture backend filled in."""

    config: DictConfig
    capture: Capture
    environment: dict[str, Any]
    fingerprint: str
    inputs: str

    @property
    def scope(self) -> str:
        return cast(str, self.config.name)

    @property
    def device(self) -> str:
        return cast(str, self.config.device)

    @property
    def outputs(self) -> Path:
        return Path(self.config.outputs).absolute()

    @property
    def model(self) -> str:
        return str(OmegaConf.select(self.config, "model.name") or "")

    def measure_command(self, run: Path) -> list[str]:
        return [sys.executable, "-m", "harness.child", "measure", str(run)]

    def trace_command(self, run: Path) -> list[str]:
        """The traced child's exact command line; empty if nothing is traced."""
        child = [sys.executable, "-m", "harness.child", "trace", str(run)]
        return self.capture.command(child, run, self.device)


def make(cfg: DictConfig) -> Plan:
    """Check `cfg` and the machine; UserError for whatever a user can mend."""
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration can't be resolved: {_first_line(error)}") from None
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{missing[0]} has no value", f"{missing[0]}=VALUE")
    check_values(cfg)
    cfg = cfg.copy()
    cfg.device = resolve_device(cfg.device)
    workload.load(cfg.workload).check(cfg)
    capture = capture_for(cfg.capture, cfg.device)
    capture.check(cfg.device)
    cfg.capture = capture.name
    stamp = environment.stamp(cfg.device)
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg))
    fingerprinted = {key: value for key, value in settings.items() if key not in _NOT_FINGERPRINTED}
    return Plan(
        config=cfg,
        capture=capture,
        environment=stamp,
        fingerprint=_sha256([fingerprinted, stamp["git"], stamp["machine"], stamp["packages"]]),
        inputs=_sha256([settings[key] for key in _INPUTS]),
    )


def check_values(cfg: DictConfig) -> None:
    """The harness's own keys; those of the workload are checked by the workload."""
    if not re.fullmatch(r"\w[\w.+-]*", str(cfg.name)):
        raise UserError(f"a scope's name can't be {cfg.name!r}: runs are stored in a folder of that name")
    _choice("device", cfg.device, DEVICES)
    _choice("capture", cfg.capture, CAPTURES)
    for role in ("measure", "trace"):
        _number(f"{role}.warmup", cfg[role].warmup, 0)
        _number(f"{role}.iterations", cfg[role].iterations, 1)
    for key in ("dry_run", "resume"):
        if not isinstance(cfg[key], bool):
            raise UserError(f"{key}={cfg[key]} is neither true nor false")
    for item in cfg.hypothesis.expect:
        bounds = [b for b in ("at_most", "at_least") if isinstance(item.get(b), int | float)]
        if not item.get("metric") or len(bounds) != 1 or len(item) != 2:
            raise UserError(
                f"hypothesis.expect has an item that can't be judged: {OmegaConf.to_container(item)}",
                "items like {metric: decode.idle_share, at_most: 0.1}",
            )


def resolve_device(wanted: str, gpu: Callable[[], dict[str, Any] | None] = environment.gpu) -> str:
    """ "cuda" or "cpu"; UserError if a GPU is demanded and there is none."""
    if wanted == "cpu":
        return "cpu"
    if gpu():
        return "cuda"
    if wanted == "cuda":
        raise UserError(
            "device=cuda, but this machine has no GPU that the NVIDIA driver can see "
            f"(found: {environment.cpu()['model']})",
            "device=auto, or python -m harness.doctor to see what is missing",
            ExitCode.MACHINE,
        )
    return "cpu"


def _choice(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{key}={value} is not one of {', '.join(allowed)}")


def _number(key: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise UserError(f"{key}={value} is not a whole number of at least {least}")


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
