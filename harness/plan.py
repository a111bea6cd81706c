"""From a composed configuration to everything that is known before a run starts."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import environment, gpu_metrics, settings, workload
from harness.capture import capture_for
from harness.capture.base import Capture
from harness.errors import ExitCode, UserError

DEVICES = ("auto", "cuda", "cpu")
CAPTURES = ("auto", "nsys", "ncu", "kineto", "none")
MEASURE_JSON = "measure.json"
TRACED_JSON = "traced.json"
SAMPLED_JSON = "sampled.json"
REPLAYED_JSON = "replayed.json"

# What a run's results don't depend on, and what its inputs stand for.
_NOT_FINGERPRINTED = ("outputs", "dry_run", "resume", *workload.INPUT_SECTIONS)


@dataclass(frozen=True)
class Plan:
    """One run, checked: the configuration has its device and capture backend filled in.

    inputs: hash of what two runs must share for their tokens and word errors to be comparable; fingerprint:
    hash of all that a run's results depend on. Neither depends on where the project or its sound lies.
    """

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

    def sample_command(self, run: Path) -> list[str]:
        """The command line of the child that is recorded with GPU metrics; empty if none is."""
        child = [sys.executable, "-m", "harness.child", "sample", str(run)]
        return self.capture.sample_command(child, run, self.device)

    def replay_command(self, run: Path) -> list[str]:
        """The command line of the child whose kernels are measured one by one; empty if none are."""
        child = [sys.executable, "-m", "harness.child", "replay", str(run)]
        return self.capture.replay_command(child, run)


def make(cfg: DictConfig) -> Plan:
    """Check `cfg` and the machine; UserError for whatever a user can mend."""
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration can't be resolved: {_first_line(error)}") from None
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{missing[0]} has no value", f"{missing[0]}=VALUE")
    settings.check(cfg, RULES)
    cfg = cfg.copy()
    cfg.device = resolve_device(cfg.device)
    read = _inputs(cfg)
    sampling = cast(str | int, gpu_metrics.setting(cfg.trace.gpu_metrics))
    capture = capture_for(cfg.capture, cfg.device, sampling, cfg.trace.graphs)
    capture.check(cfg.device)
    cfg.capture = capture.name
    stamp = environment.stamp(cfg.device)
    chosen = {key: value for key, value in _plain(cfg).items() if key not in _NOT_FINGERPRINTED}
    return Plan(
        config=cfg,
        capture=capture,
        environment=stamp,
        fingerprint=_sha256([chosen, read, stamp["git"], stamp["machine"], stamp["packages"]]),
        inputs=_sha256([cfg.workload, cfg.device, read]),
    )


def _inputs(cfg: DictConfig) -> dict[str, Any]:
    """What the workload reads, once it has agreed to the configuration."""
    try:
        module = workload.load(cfg.workload)
        module.check(cfg)
        return workload.inputs(module, _plain(cfg))
    except OSError as error:
        raise UserError(f"the input can't be read: {error}", exit_code=ExitCode.INPUT) from None


def _can_be_judged(expectations: Any) -> bool:
    return isinstance(expectations, Sequence) and all(
        isinstance(item, Mapping)
        and isinstance(item.get("metric"), str)
        and len(item) == 2
        and (settings.is_number(item.get("at_most")) or settings.is_number(item.get("at_least")))
        for item in expectations
    )


# The harness's own settings; those of the workload are checked by the workload.
RULES = {
    "name": settings.text("a scope's name: runs are stored in a folder of that name", r"\w[\w.+-]*"),
    "workload": settings.text("the name of a Python module", r"[^\W\d]\w*(\.[^\W\d]\w*)*"),
    "device": settings.one_of(*DEVICES),
    "measure.warmup": settings.whole(0),
    "measure.iterations": settings.whole(1),
    "trace.warmup": settings.whole(0),
    "trace.iterations": settings.whole(1),
    "trace.graphs": settings.one_of("node", "graph"),
    "trace.metric_iterations": settings.whole(1),
    "trace.gpu_metrics": settings.Rule(
        gpu_metrics.VALID, lambda value: gpu_metrics.setting(value) is not None
    ),
    "capture": settings.one_of(*CAPTURES),
    "compare_with": settings.text("a scope's name").or_null(),
    "hypothesis.claim": settings.text("text", r"(?s).*"),
    "hypothesis.expect": settings.Rule(
        "a list of items like {metric: decode.idle_share, at_most: 0.1} or {..., at_least: ...}",
        _can_be_judged,
    ),
    "outputs": settings.FOLDER,
    "dry_run": settings.FLAG,
    "resume": settings.FLAG,
}


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


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(cfg))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
