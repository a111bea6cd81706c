"""What is evaluated: a checkpoint, the clips it is to transcribe, and what is known to be true of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments import audio, models
from experiments.audio import WINDOW_S, Clip
from experiments.features import LogMel
from experiments.models import LoadedModel
from experiments.options import Options
from experiments.static_loop import StaticLoop
from harness.errors import ExitCode, UserError
from harness.phases import HostTimer, NvtxAnnotator, PhaseClock

LANGUAGE = "en"
TRUTH_FILE = "segments.json"


class Skipped(Exception):
    """A part that can't be measured here, with the reason."""


@dataclass(frozen=True)
class Truth:
    """Of one clip: its `condition` and (first second, last second, sentence) of each segment."""

    condition: str
    segments: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Subject:
    """model: as it was asked for, a folder or a name on the hub; truth: by `Clip.source`, empty if unknown.

    greedy: the project's decoder with the prompt that asks for no timestamps.
    """

    model: str
    loaded: LoadedModel
    clips: Sequence[Clip]
    truth: dict[str, Truth]
    device: str
    log_mel: LogMel
    greedy: Greedy

    @property
    def folder(self) -> Path | None:
        """The checkpoint's folder, None for one from the hub."""
        path = Path(self.model).expanduser()
        return path if path.is_dir() else None

    @property
    def language_arguments(self) -> dict[str, str]:
        """For transformers' generate; an English-only checkpoint takes none."""
        return {"language": LANGUAGE, "task": "transcribe"} if self.loaded.language else {}

    def features(self, windows: np.ndarray) -> torch.Tensor:
        """float32 [B, 480000] at 16 kHz -> log-mel [B, n_mels, 3000] as the model wants it."""
        return self.log_mel(torch.from_numpy(windows).to(self.device)).to(self.loaded.model.dtype)

    def one_window(self) -> list[Clip]:
        """The clips that fit into one window; Skipped if none does."""
        if clips := [clip for clip in self.clips if clip.dur_s <= WINDOW_S]:
            return clips
        raise Skipped(f"every clip is longer than a window of {WINDOW_S} s")


class Greedy:
    """The project's own decoder: its tokens for one window. Graphs replay each step on a GPU."""

    def __init__(self, loaded: LoadedModel, device: str, quantize: str = "none") -> None:
        graphs = "manual" if device == "cuda" else "none"
        options = Options(attention="sdpa", decoder="static", graphs=graphs, quantize=quantize)
        self._loop = StaticLoop(loaded, options, device)
        self._clock = PhaseClock(HostTimer(), NvtxAnnotator())

    @torch.inference_mode()
    def __call__(self, features: torch.Tensor) -> list[int]:
        """Without prompt and end token. features: [1, n_mels, 3000]."""
        return self._loop.decode(features, self._clock)[0]


def with_timestamps(loaded: LoadedModel) -> LoadedModel:
    """The same model with a prompt that asks for timestamps; the mark against them is not to be chosen."""
    *prompt, no_timestamps = loaded.prompt
    return dataclasses.replace(loaded, prompt=tuple(prompt), suppress=(*loaded.suppress, no_timestamps))


def open_subject(model: str, audio_path: Path, device: str) -> Subject:
    """Load checkpoint and clips; UserError for those that can't be used."""
    if not audio_path.exists():
        raise UserError(f"{audio_path} does not exist", "--audio FILE or FOLDER of sound", ExitCode.INPUT)
    audio.check(audio_path, math.inf)
    truth = _truth(audio_path)
    loaded = _load(model, device)
    log_mel = LogMel(loaded.model.config.num_mel_bins).to(device)
    return Subject(model, loaded, audio.load(audio_path), truth, device, log_mel, Greedy(loaded, device))


def _load(model: str, device: str) -> LoadedModel:
    cfg = {"source": "pretrained", "name": model, "new_tokens": None}
    try:
        return models.load(cfg, "sdpa", LANGUAGE, device, None)
    except UserError as error:
        hint = "--model FOLDER of a Whisper checkpoint, or its name on the hub"
        raise UserError(str(error), hint, error.exit_code) from error


def _truth(audio_path: Path) -> dict[str, Truth]:
    path = (audio_path if audio_path.is_dir() else audio_path.parent) / TRUTH_FILE
    if not path.is_file():
        return {}
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        return {
            source: Truth(
                str(clip["condition"]),
                tuple((float(a), float(b), str(text)) for a, b, text in clip["segments"]),
            )
            for source, clip in raw.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UserError(
            f"{path} is not a list of segments ({problem})",
            '{"clip.ogg": {"condition": "clean", "segments": [[0.4, 3.2, "What is said."]]}}',
            ExitCode.INPUT,
        ) from problem
