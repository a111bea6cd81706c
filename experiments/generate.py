"""Greedy decoding as people have it today: transformers' own `generate`, with its phases marked."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import torch
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from experiments.attention import kernels
from experiments.models import LoadedModel
from harness import phases
from harness.phases import PhaseClock


class GenerateDecoder:
    """Encoder and decode loop inside one call of `generate`; hooks mark where its phases begin and end."""

    def __init__(self, loaded: LoadedModel, attention: str, device: str) -> None:
        self._loaded = loaded
        self._attention = attention
        self._device = device

    def decode(self, features: torch.Tensor, clock: PhaseClock) -> list[list[int]]:
        """Token ids of each window, without the prompt and the end token. features: [B, n_mels, 3000]."""
        loaded = self._loaded
        marks = _PhaseMarks(clock, loaded.end, loaded.max_new_tokens)
        encoder = loaded.model.get_encoder()
        hooks = [
            encoder.register_forward_pre_hook(marks.encoder_begins),
            encoder.register_forward_hook(marks.encoder_ends),
        ]
        try:
            with kernels(self._attention, self._device):
                tokens = loaded.model.generate(features, **self._arguments(marks))
        finally:
            marks.close()
            for hook in hooks:
                hook.remove()
        # Rows that ended earlier than others are filled up.
        over = (loaded.end, loaded.model.generation_config.pad_token_id)
        return [list(takewhile(lambda token: token not in over, row)) for row in tokens.tolist()]

    def _arguments(self, marks: _PhaseMarks) -> dict[str, Any]:
        loaded = self._loaded
        arguments: dict[str, Any] = {
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": loaded.max_new_tokens,
            "stopping_criteria": StoppingCriteriaList([marks]),
        }
        if loaded.language is not None:
            arguments |= {"language": loaded.language, "task": "transcribe"}
        return arguments


class _PhaseMarks(StoppingCriteria):
    """generate calls this once per new token, after choosing it: a step ends there and the next begins.

    So a step holds everything that generate does for one token: the forward pass, the logit rules, the choice
    and its own bookkeeping.
    """

    def __init__(self, clock: PhaseClock, end: int, max_new_tokens: int) -> None:
        self._clock = clock
        self._end = end
        self._max_new_tokens = max_new_tokens
        self._chosen = 0
        self._ended: torch.Tensor | None = None
        self._open: list[str] = []

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        self._chosen += 1
        self._finish()
        if self._is_last(input_ids):
            self.close()
        else:
            if self._chosen == 1:
                self._begin(phases.DECODE)
            self._begin(phases.DECODE_STEP, payload=self._chosen)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    def encoder_begins(self, *_: object) -> None:
        self._begin(phases.ENCODE)

    def encoder_ends(self, *_: object) -> None:
        self._finish()
        self._begin(phases.PREFILL)

    def close(self) -> None:
        while self._open:
            self._clock.end(self._open.pop())

    def _is_last(self, input_ids: torch.Tensor) -> bool:
        ends = input_ids[:, -1] == self._end
        self._ended = ends if self._ended is None else self._ended | ends
        # Reading it blocks the host; generate does the same right after, so this moves the wait only.
        return self._chosen == self._max_new_tokens or bool(self._ended.all())

    def _begin(self, name: str, payload: int | None = None) -> None:
        self._clock.begin(name, payload)
        self._open.append(name)

    def _finish(self) -> None:
        """Close the innermost open phase, but leave `decode` open from its first step to the last."""
        if self._open and self._open[-1] != phases.DECODE:
            self._clock.end(self._open.pop())
