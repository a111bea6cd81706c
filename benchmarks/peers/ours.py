"""A scope of this project, configured as its command line does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from benchmarks.peers.contenders import Task
from benchmarks.peers.timed import timed
from experiments import transcription
from experiments.audio import WINDOW_S
from harness import usage
from harness.phases import PhaseClock


def measure(task: Task, argument: str) -> dict[str, Any]:
    """argument: a scope's name, and overrides of its settings."""
    work = Scope(task, argument)
    return timed(work, task) | work.facts()


class Scope:
    """The workload of a scope; `batch` is set only above 1."""

    def __init__(self, task: Task, argument: str) -> None:
        scope, *overrides = argument.split()
        cfg = configuration(task, scope, overrides)
        transcription.check(cfg)
        self._work = transcription.build(cfg, task.device)

    def run(self, clock: PhaseClock) -> None:
        self._work.run(clock)

    def tokens(self) -> list[list[int]]:
        return self._work.tokens()

    def facts(self) -> dict[str, Any]:
        """`notes`, and `floor_bytes` of its own: those of a scope with smaller weights are fewer."""
        described = self._work.describe()
        return {"notes": described["notes"], "floor_bytes": described["floor"]["decode_step_bytes"]}


def configuration(task: Task, scope: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Raises UserError for what the command line would refuse."""
    usage.register_resolvers()
    settings = [
        f"+scope={scope}",
        f"model={task.model}",
        f"audio.path={task.sound}",
        f"audio.max_seconds={task.batch * WINDOW_S}",
        f"max_new_tokens={task.tokens}",
        f"device={task.device}",
        *overrides,
    ]
    if task.batch > 1:
        settings.append(f"batch={task.batch}")
    try:
        with initialize_config_dir(str(usage.CONF), version_base="1.3"):
            return compose("config", overrides=settings)
    except Exception as error:
        raise usage.explain(error) from error
