"""training.json: from what, on what and how fast a checkpoint was trained. The card shows it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.train.recipe import Recipe
from harness import environment
from harness.record import write_json

FILE_NAME = "training.json"
PACKAGES = ("torch", "transformers", "tokenizers", "espeakng-loader")


@dataclass(frozen=True)
class Origin:
    """Of a training run: commit of the code and whether the tree differed from it, day it ended, processor,
    and versions by package."""

    commit: str | None
    dirty: bool | None
    date: str
    machine: str
    versions: dict[str, str]


def origin_here(device: str) -> Origin:
    """A run that ends now, on this machine."""
    import torch

    on_gpu, code = device == "cuda", environment.git(environment.PROJECT)
    return Origin(
        commit=code["commit"],
        dirty=code["dirty"],
        date=datetime.now(UTC).date().isoformat(),
        machine=torch.cuda.get_device_name() if on_gpu else environment.cpu()["model"],
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
    )


def write_record(folder: Path, work: Path, recipe: Recipe, origin: Origin) -> None:
    """Write training.json into `folder`: origin, recipe, corpus, and from `work` the rows of both curves.

    training_s: seconds of the training loops, without the making of the corpus.
    """
    curves = {name: _rows(work / name / "curve.jsonl") for name in ("model", "draft")}
    record = asdict(origin) | {
        "training_s": {name: rows[-1]["s"] for name, rows in curves.items()},
        "recipe": asdict(recipe),
        "corpus": _corpus(),
        **curves,
    }
    write_json(folder / FILE_NAME, record)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _corpus() -> dict[str, Any]:
    """What every recipe shares: the language of the text and the voices that speak it."""
    from experiments.train import speech, text, windows

    return {
        "words": len(text.vocabulary()),
        "longest_sentence_words": text.LONGEST,
        "sentence_shares": text.SHARES,
        "held_out_sentences_one_in": text.HELD_OUT_ONE_IN,
        "accents": len(speech.ACCENTS),
        "voices": len(speech.TRAIN_VARIANTS),
        "held_out_voices": len(speech.HELD_OUT_VARIANTS),
        "no_speech_share": windows.NO_SPEECH_SHARE,
        "timestamps_share": windows.TIMESTAMPS_SHARE,
    }
