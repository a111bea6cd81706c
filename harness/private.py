"""Texts of a run without what is private to the machine that made it, which need not be this one."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.environment import PROJECT
from harness.record import Record

_PATH = re.compile(r"""(?:^|=)['"]?(/[^'"]+)""")  # of a word that is an absolute path, or key=path


def names(record: Record, outputs: Path) -> dict[str, str]:
    """What the files of a run in `outputs` say of its machine, and what to say instead.

    Its interpreter is called `python`; a path below the folder of outputs, here or where the run was made, or
    below the project begins there; any other absolute path that the run was given is left with its last part.
    """
    config = OmegaConf.to_container(OmegaConf.load(outputs / record.id / "config.yaml"))
    commands = [record.command, *(value for value in record.capture.values() if isinstance(value, list))]
    paths = [path for text in _texts([commands, record.overrides, config]) for path in _PATH.findall(text)]
    made_in = [path.partition(f"/{record.id}")[0] for path in paths if f"/{record.id}" in path]
    folders = {str(PROJECT): ".", **dict.fromkeys([str(outputs), *made_in], "outputs")}
    elsewhere = (path for path in paths if not any(path.startswith(f"{folder}/") for folder in folders))
    found = {path: Path(path).name for path in elsewhere}
    found |= folders | dict.fromkeys([sys.executable, record.command[0]], "python")
    found = {path: name for path, name in found.items() if Path(path).is_absolute() and Path(path).name}
    found[f'"{record.host}"'] = '"-"'
    if gpu := record.environment["gpu"]:
        found[str(gpu["uuid"])] = "-"
    return found


def without(text: str, private: Mapping[str, str]) -> str:
    """`text` (JSON, HTML or plain) with each of the `private` names replaced where it stands for itself."""
    forms = {
        form: name
        for word, name in private.items()
        for form in (word, html.escape(word), json.dumps(word)[1:-1])
    }
    # Longest first: a folder may lie in another. "/a" is not meant by "./a", "b/a" and "</a>".
    any_of = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return re.sub(rf"(?<![\w.<])(?:{any_of})(?!\w)", lambda found: forms[found[0]], text)


def _texts(value: Any) -> Iterator[str]:
    """The strings in a tree of lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
