"""What a run left behind, read and held to its form: run.json and measure.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from analysis.errors import TraceError
from analysis.reading.source import RECORD

MEASURED = "measure.json"
WHAT = "a run folder (with run.json), a folder of runs, or a trace (.sqlite, .sqlite.xz)"
_REPAIR = "restore the file, or run the scope again"
_FORM: dict[str, type] = {
    "id": str,
    "scope": str,
    "status": str,
    "started_utc": str,
    "model": object,
    "device": object,
    "inputs": object,
    "environment": dict,
    "metrics": dict,
}
_JSON_NAMES: dict[type, str] = {str: "a text", dict: "an object"}


def record(folder: Path) -> dict[str, Any]:
    """A run's run.json, with every entry that a comparison needs; its metrics are numbers, perhaps NaN.

    Raises TraceError that names the file and the entry.
    """
    path = folder / RECORD
    found = _json(path)
    if missing := [key for key in _FORM if key not in found]:
        raise TraceError(f"{path} is not a run's record: it has no {missing[0]}", f"give {WHAT}")
    for key, kind in _FORM.items():
        _require(isinstance(found[key], kind), path, key, found[key], _JSON_NAMES.get(kind, ""))
    for name, value in found["metrics"].items():
        _require(_is_number(value), path, f"the metric {name}", value, "a number")
    packages = found["environment"].get("packages") or {}
    _require(isinstance(packages, dict), path, "environment.packages", packages, "an object")
    return found


def measured(folder: Path) -> dict[str, Any]:
    """A run's measure.json, empty if it left none: its iterations have `iter_ns` > 0 and `phases`.

    Raises TraceError that names the file and the entry.
    """
    path = folder / MEASURED
    if not path.exists():
        return {}
    found = _json(path)
    iterations = found.get("iterations", [])
    _require(isinstance(iterations, list), path, "iterations", iterations, "a list")
    for number, one in enumerate(iterations):
        _check_iteration(path, f"iterations[{number}]", one)
    workload = found.get("workload") or {}
    _require(isinstance(workload, dict), path, "workload", workload, "an object")
    audio_s = workload.get("audio_s") or 0
    _require(is_finite(audio_s), path, "workload.audio_s", audio_s, "a number")
    transcripts = found.get("transcripts") or []
    alike = isinstance(transcripts, list) and all(
        isinstance(one, dict) and isinstance(one.get("source"), str) and "window" in one
        for one in transcripts
    )
    _require(alike, path, "transcripts", transcripts, "a list of source and window")
    return found


def is_finite(value: object) -> bool:
    """Whether it is a number, and neither NaN nor infinite."""
    return _is_number(value) and abs(value) <= sys.float_info.max


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_iteration(path: Path, where: str, one: Any) -> None:
    _require(isinstance(one, Mapping), path, where, one, "an object with iter_ns and phases")
    iter_ns = one.get("iter_ns")
    _require(is_finite(iter_ns) and iter_ns > 0, path, f"{where}.iter_ns", iter_ns, "a number above 0")
    phases = one.get("phases")
    _require(isinstance(phases, Mapping), path, f"{where}.phases", phases, "an object")
    for name, times in phases.items():
        good = isinstance(times, list) and all(is_finite(ns) and ns >= 0 for ns in times)
        _require(good, path, f"{where}.phases.{name}", times, "a list of times in ns")
    counts = one.get("counts", {})
    good = isinstance(counts, Mapping) and all(is_finite(count) and count >= 0 for count in counts.values())
    _require(good, path, f"{where}.counts", counts, "numbers by name")


def _require(good: bool, path: Path, where: str, found: object, wanted: str) -> None:
    if not good:
        shown = json.dumps(found)
        shown = shown if len(shown) <= 40 else f"{shown[:40]} …"
        raise TraceError(f"{path} is damaged: {where} is {shown}, not {wanted}", _REPAIR)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise TraceError(f"{path} can't be read: {error}", f"give {WHAT}") from None
    if not isinstance(value, dict):
        raise TraceError(f"{path} is not a run's record", f"give {WHAT}")
    return value
