"""`python -m benchmarks.peers.child CONTENDER TASK`: measures one contender, prints one JSON object."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import traceback
from importlib import metadata
from typing import Any

from benchmarks.peers.contenders import Contender, Task, named
from harness.errors import UserError

PACKAGES = ("torch", "transformers", "openai-whisper", "triton", "torchao")


def main() -> int:
    name, task = sys.argv[1:]
    answer = _alone_on_stdout()
    result = _measured(named(name), Task(**json.loads(task)))
    answer.write(json.dumps(result | {"versions": _versions()}))
    answer.close()
    return 0


def _measured(contender: Contender, task: Task) -> dict[str, Any]:
    """What `measure` returns; or `refused` (what was found, what to do), or `failed` (the error)."""
    try:
        module = importlib.import_module(f"benchmarks.peers.{contender.module}")
        return module.measure(task, contender.argument)
    except UserError as error:
        return {"refused": f"{error}{f' ({error.hint})' if error.hint else ''}"}
    except Exception as error:
        traceback.print_exc()  # into the log
        first = next(iter(str(error).strip().splitlines()), "")
        return {"failed": f"{type(error).__name__}: {first}"}


def _alone_on_stdout() -> Any:
    """What was stdout, for the answer alone; whatever libraries print goes to the log on stderr."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answer


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
