"""Who takes part, and what each is asked to do. Importable without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments import floor
from harness.errors import UserError
from harness.usage import CONF

REFERENCE = "transformers_eager"  # whose tokens and time the others are compared with
OPENAI_WHISPER = "openai-whisper==20250625"  # no dependency of the project
PROMPT = 4  # tokens that every window starts with: start, language, task, no timestamps
SHARED = ("scope", "model", "audio", "batch", "device", "max_new_tokens")  # settings that a row stands for
ENCODER_POSITIONS = 1500  # of a 30 s window, in every Whisper


@dataclass(frozen=True)
class Contender:
    """module: of this package, with `measure(task, argument)`."""

    name: str
    label: str
    module: str
    argument: str = ""


PEERS = (
    Contender(REFERENCE, "transformers, eager attention", "generate", "eager"),
    Contender("transformers_sdpa", "transformers, SDPA", "generate", "sdpa"),
    Contender("transformers_static", "transformers, SDPA, static cache", "generate", "static"),
    Contender("openai_whisper", "openai-whisper", "openai_whisper"),
    Contender("whisper_cpp", "whisper.cpp", "whisper_cpp"),
)


@dataclass(frozen=True)
class Task:
    """What is decoded, and how often: `tokens` for each of the `batch` windows in the folder `sound`.

    After `warmup` iterations that don't count there are `iterations` of them, fewer if they take longer than
    `seconds`, but at least LEAST_ITERATIONS. device: `cuda` (fp16) or `cpu` (fp32).
    """

    model: str
    batch: int
    tokens: int
    device: str
    sound: str
    warmup: int
    iterations: int
    seconds: float


LEAST_ITERATIONS = 5


def everyone() -> list[Contender]:
    """The peers, and a contender for each file in conf/scope/."""
    return [*PEERS, *(_ours(file.stem) for file in sorted((CONF / "scope").glob("*.yaml")))]


def chosen(patterns: Sequence[str]) -> list[Contender]:
    """Those whose name fits one of the patterns (`transformers*`), each once; UserError for what fits none.

    A scope followed by overrides of its settings (`cuda_graphs quantize=int8`) is a contender, too.
    """
    patterns = [" ".join(pattern.split()) for pattern in patterns]
    variants = [_variant(pattern) for pattern in dict.fromkeys(patterns) if _is_variant(pattern)]
    known = [*everyone(), *variants]
    for pattern in patterns:
        if not any(_fits(one, pattern) for one in known):
            names = ", ".join(one.name for one in known)
            raise UserError(f"no contender is called {pattern!r}", f"one of: {names}")
    return [one for one in known if any(_fits(one, pattern) for pattern in patterns)]


def named(name: str) -> Contender:
    """One of `chosen`."""
    return _ours(name) if _is_variant(name) else next(one for one in everyone() if one.name == name)


def _fits(one: Contender, pattern: str) -> bool:
    return one.name == pattern or fnmatch(one.name, pattern)  # a list's brackets are a pattern's, too


def _ours(scope: str) -> Contender:
    return Contender(scope, f"`{scope}`", "ours", scope)


def _variant(name: str) -> Contender:
    """A scope with overrides; UserError for one of what all contenders share."""
    for override in name.split()[1:]:
        try:
            key = OverridesParser.create().parse_override(override).key_or_group
        except HydraException:
            raise UserError(f"{name!r}: {override} is no override", "SETTING=VALUE") from None
        if (setting := re.split("[./]", key)[0]) in SHARED:
            raise UserError(
                f"{name!r}: {setting} is the same for all contenders",
                "--batch, --model, --device and --tokens, for all of them",
            )
    return _ours(name)


def _is_variant(name: str) -> bool:
    scope, _, overrides = name.partition(" ")
    return bool(overrides) and scope in (one.name for one in everyone() if one.module == "ours")


def model(name: str) -> Mapping[str, Any]:
    """A choice of conf/model/ with random weights, which say no end: exactly as many tokens as asked for."""
    random = {}
    for file in sorted((CONF / "model").glob("*.yaml")):
        found = OmegaConf.load(file)
        if found.source == "random":
            random[file.stem] = found
    if name not in random:
        raise UserError(
            f"model {name!r} is none with random weights, and others end where they want to",
            f"--model {' or '.join(random)}",
        )
    return random[name]


def floor_bytes(task: Task) -> float:
    """Bytes that the mean decode step of a task reads and writes at least."""
    shape = model(task.model)["shape"]
    shapes = floor.Shapes(
        layers=shape["layers"],
        width=shape["d_model"],
        mlp=4 * shape["d_model"],
        positions=ENCODER_POSITIONS,
        vocabulary=shape["vocab_size"],
    )
    # The steps after the first token find 1 to tokens - 1 of them in the cache.
    cached = PROMPT + task.tokens / 2
    return floor.decode_step(shapes, cached, 2 if task.device == "cuda" else 4, task.batch).bytes
