"""The run that another is compared with: one of a scope as its file has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from harness import mechanisms
from harness.errors import UserError
from harness.record import Record
from harness.store import Store


def find(store: Store, record: Record, cfg: Any) -> str:
    """Id of the newest finished run of the scope `cfg.compare_with` with the inputs of `record`, before all
    others one from the same machine. UserError if there is none, which says why.

    A run is the scope's if it has the mechanisms of the scope's file: `+scope=cuda_graphs quantize=int8` is
    no cuda_graphs. It may have what `record` was given, too, where the two scopes' files agree: `batch=8` for
    both compares the same two scopes.
    """
    scope = cfg.compare_with
    runs = [run for run in store.finished(scope=scope, inputs=record.inputs) if run["id"] != record.id]
    if not runs:
        raise UserError(f"no finished run of {scope} with the same model, audio, reference texts and device")
    wanted = mechanisms.of_scope(scope)
    given = _given(record, cfg, scope, wanted or {})
    here = record.environment["machine"]
    for run in sorted(runs, key=lambda run: run["machine"] != here):
        if wanted is None or not _changes(store.outputs / run["id"], wanted, given):
            return str(run["id"])
    newest = runs[0]["id"]
    changes = _changes(store.outputs / newest, wanted or {}, given)
    raise UserError(f"{newest} was passed over, as it has {changes}")


def _given(record: Record, cfg: Any, scope: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The mechanisms of a run in which its scope's file and the `wanted` ones of `scope` agree. None for a
    run of that scope itself: it is compared for what it was given."""
    started = (o.removeprefix("+scope=") for o in record.overrides if o.startswith("+scope="))
    own = next(started, record.scope)
    if own == scope:
        return {}
    before = mechanisms.of_scope(own) or {}
    found = mechanisms.of(cfg)
    return {name: value for name, value in found.items() if before.get(name) == wanted.get(name)}


def _changes(run: Path, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """In what a run's mechanisms are neither the `wanted` nor the `given` ones; empty if in nothing."""
    try:
        found = mechanisms.of(OmegaConf.load(run / "config.yaml"))
    except (OSError, YAMLError) as error:
        return f"no config.yaml that can be read ({error})"
    return ", ".join(
        f"{name}={value} instead of {wanted.get(name)}"
        for name, value in found.items()
        if value != wanted.get(name) and not (name in given and value == given[name])
    )
