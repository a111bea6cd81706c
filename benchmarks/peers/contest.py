"""The contenders, each in a process of its own, one after the other."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.peers import windows
from benchmarks.peers.contenders import REFERENCE, Contender, Task, floor_bytes
from harness import processes
from harness.environment import PROJECT
from harness.record import utc_now

Row = dict[str, Any]
LOGS = PROJECT / "outputs" / "bench"
_LONGEST_NAME = 100  # of a log; a variant's name is as long as its overrides


def contest(
    rounds: Sequence[tuple[Contender, Task]], stamp: dict[str, Any], patience_s: float
) -> Iterator[Row]:
    """A row for each contender and its task, whatever became of it; all of a batch get the same sound."""
    for batch, alike in groupby(rounds, key=lambda one: one[1].batch):
        with tempfile.TemporaryDirectory(prefix="bench-") as sound:
            windows.write(Path(sound), batch)
            for contender, task in alike:
                heard = replace(task, sound=sound)
                yield row(contender, heard, stamp, call(contender, heard, patience_s))


def call(contender: Contender, task: Task, patience_s: float) -> dict[str, Any]:
    """What the contender's process answered, with `started_utc` and `wall_s`; `failed` if there was no answer
    in time."""
    LOGS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.=+-]+", "_", contender.name)[:_LONGEST_NAME]
    log = LOGS / f"{name}-{task.batch}.log"
    command = [sys.executable, "-m", "benchmarks.peers.child", contender.name, json.dumps(asdict(task))]
    started_utc, begin = utc_now(), time.monotonic()
    with open(log, "wb") as sink:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            cwd=PROJECT,
            start_new_session=True,
        )
        try:
            said, _ = child.communicate(timeout=patience_s)
            answer = _parsed(said) or {"failed": _death(child.returncode, log)}
        except subprocess.TimeoutExpired:
            answer = {"failed": f"took more than {patience_s:g} s"}
        finally:
            processes.end(child)
    return answer | {"started_utc": started_utc, "wall_s": round(time.monotonic() - begin, 1)}


def row(contender: Contender, task: Task, stamp: dict[str, Any], answer: dict[str, Any]) -> Row:
    """The answer with all that is needed to read it later. The tokens of the reference are kept (`chosen`,
    one text for each window), those of the others only until they are compared (`decoded`)."""
    tokens = [" ".join(map(str, window)) for window in answer.pop("tokens", [])]
    return {
        **identity(contender, task, stamp),
        "label": contender.label,
        "dirty": stamp["git"]["dirty"],
        "driver": (stamp["gpu"] or {}).get("driver"),
        "peak_bps": (stamp["gpu"] or {}).get("memory_bandwidth_bps") if task.device == "cuda" else None,
        "floor_bytes": floor_bytes(task),
        **answer,
        **({"chosen" if contender.name == REFERENCE else "decoded": tokens} if tokens else {}),
    }


def identity(contender: Contender, task: Task, stamp: dict[str, Any]) -> dict[str, Any]:
    """What a row is of: who did what, on which machine, from which commit."""
    settings = {name: value for name, value in asdict(task).items() if name != "sound"}
    place = {"machine": stamp["machine"], "commit": stamp["git"]["commit"]}
    return {"contender": contender.name, **settings, **place}


def compared(found: Row, reference: Row | None) -> Row:
    """The row with how far its tokens are those of the reference (`agreement`) in place of `decoded`; as it
    was where one of the two is missing."""
    if reference is None or "decoded" not in found:
        return found
    same = [
        [a == b for a, b in zip(ours.split(), theirs.split(), strict=True)]
        for ours, theirs in zip(found["decoded"], reference["chosen"], strict=True)
    ]
    parted = [window.index(False) for window in same if not all(window)]
    agreement = {
        "share": sum(map(sum, same)) / sum(map(len, same)),
        "windows_identical": len(same) - len(parted),
        "first_difference": min(parted, default=None),
        "reference": digest(reference["chosen"]),
    }
    return {name: value for name, value in found.items() if name != "decoded"} | {"agreement": agreement}


def digest(tokens: Sequence[str]) -> str:
    """Of the reference's tokens: says which ones a row was compared with."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:12]


def _parsed(said: bytes) -> dict[str, Any] | None:
    """An answer, if it is a whole one."""
    try:
        return json.loads(said)
    except ValueError:
        return None


def _death(status: int, log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{processes.describe_exit(status)}{f' ({lines[-1].strip()})' if lines else ''}"
