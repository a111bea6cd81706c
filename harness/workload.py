"""What the harness asks of the code that it measures."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from omegaconf import DictConfig

from harness.errors import UserError
from harness.phases import PhaseClock

# The sections of the configuration that say what goes into a workload.
INPUT_SECTIONS = ("model", "audio", "max_new_tokens")


class Workload(Protocol):
    """Something that can be run again and again on the same input.

    It may also have `word_errors(transcripts) -> dict`, how far these are from their references, JSON-able:
    `wer` and `cer` (shares; None if undefined, and `why` says why), `words` (of the references),
    `substitutions`, `deletions`, `insertions`, `clips`, `clips_without_reference`, `library`, `normalizer`,
    and `worst`: a few clips as `source`, `errors`, `words` and `alignment` (lines of text).
    """

    def run(self, clock: PhaseClock) -> None:
        """One iteration over the whole input; returns when the device is done with it."""

    def transcripts(self) -> list[dict[str, Any]]:
        """An untimed pass, one dict per 30 s window: `source`, `window`, `tokens` (list of int),
        `margins` (top-1 minus top-2 logit at each position), `text` (or None) and `reference` (what the
        whole source should give, the same in each of its windows, or None)."""

    def describe(self) -> dict[str, Any]:
        """JSON-able facts for the record: model, dtype, `audio_s`, windows, notes, ..."""

    def close(self) -> None:
        """Give back what was held."""


class WorkloadModule(Protocol):
    """The module that `workload=` names. Importing it must not import torch: the parent does it.

    It may also have `inputs(cfg: Mapping) -> dict`: what INPUT_SECTIONS stand for, JSON-able, with files by
    name and content rather than by path. Called in the parent after `check`.
    """

    def check(self, cfg: DictConfig) -> None:
        """Cheap validation in the parent, before anything is written; raises UserError."""

    def build(self, cfg: DictConfig, device: str) -> Workload:
        """In the child: load everything onto `device` ("cuda" or "cpu"), with random weights seeded."""


def load(name: str) -> WorkloadModule:
    """Import the workload module `name`; UserError if there is no such module, or if it is no workload."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(
                f"no workload module named {name!r}", "workload=experiments.transcription"
            ) from None
        raise
    if not all(callable(getattr(module, function, None)) for function in ("check", "build")):
        raise UserError(
            f"workload={name} is not a workload: it has no check(cfg) and build(cfg, device)",
            "workload=experiments.transcription",
        )
    return cast(WorkloadModule, module)


def inputs(module: WorkloadModule, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What `module` reads under `cfg`; the configuration of it if the module doesn't say."""
    own = getattr(module, "inputs", None)
    return own(cfg) if own else {key: cfg.get(key) for key in INPUT_SECTIONS}


def word_errors(work: Workload, transcripts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How far `transcripts` are from their references; None if the workload has no measure of that."""
    own: Callable[..., dict[str, Any]] | None = getattr(work, "word_errors", None)
    return own(transcripts) if own else None
