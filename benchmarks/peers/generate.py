"""transformers' own `generate`, as people call it: feature extractor, encoder and decode loop are its own."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import WhisperFeatureExtractor
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from benchmarks.peers import windows
from benchmarks.peers.contenders import Task, model
from benchmarks.peers.timed import Marks, timed
from experiments import models
from experiments.audio import SAMPLE_RATE_HZ
from harness import phases
from harness.phases import PhaseClock


def measure(task: Task, how: str) -> dict[str, Any]:
    """how: `eager` or `sdpa` (attention, with a cache that grows), `static` (SDPA, and a cache of constant
    size, for which generate compiles its step by itself)."""
    peer = Generate(task, how)
    return timed(peer, task) | {"notes": peer.notes()}


class Generate:
    """One call of `generate` for all windows. arguments: what it is given besides."""

    def __init__(self, task: Task, how: str, **arguments: Any) -> None:
        attention = "eager" if how == "eager" else "sdpa"
        loaded = models.load(model(task.model), attention, "en", task.device, task.tokens)
        self._task = task
        self._model = loaded.model
        self._windows = windows.read(task.sound)
        self._extract = WhisperFeatureExtractor(feature_size=self._model.config.num_mel_bins)
        self._static = how == "static"
        self._more = arguments | ({"cache_implementation": "static"} if self._static else {})
        self._tokens: list[list[int]] = []
        self._graphs = [_graphs_compiled()]  # before the first iteration, and after each
        self._marks = Marks(task.tokens)
        encoder = self._model.get_encoder()
        encoder.register_forward_pre_hook(self._marks.encoder_begins)
        encoder.register_forward_hook(self._marks.encoder_ends)

    def run(self, clock: PhaseClock) -> None:
        with clock.phase(phases.FEATURES):
            features = self._features()
        with self._marks.on(clock):
            self._tokens = self._model.generate(features, **self._arguments()).tolist()
        self._graphs.append(_graphs_compiled())

    def tokens(self) -> list[list[int]]:
        return self._tokens

    def notes(self) -> list[str]:
        """Whether the step of a static cache was compiled, and whether that was over when time was taken."""
        before, warm, after = (self._graphs[n] for n in (0, self._task.warmup, -1))
        if not self._static:
            return []
        if after == before:
            return ["its step was never compiled"]
        return [f"recompiled during the timed iterations: {after - warm}"] if after > warm else []

    def _features(self) -> torch.Tensor:
        """Log-mel [batch, n_mels, 3000]."""
        device = self._task.device
        found = self._extract(self._windows, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", device=device)
        return found.input_features.to(device, self._model.dtype)

    def _arguments(self) -> dict[str, Any]:
        return {
            "language": "en",
            "task": "transcribe",
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": self._task.tokens,
            "stopping_criteria": StoppingCriteriaList([_EachToken(self._marks)]),
            **self._more,
        }


def _graphs_compiled() -> int:
    """In this process, so far; each time that code is compiled anew counts."""
    return int(counters["stats"]["unique_graphs"])


class _EachToken(StoppingCriteria):
    """generate calls this after each choice; it never stops anything."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        self._marks.token_chosen()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
