"""The decode loop around the static step: the host runs ahead of the device and never waits for a token."""

from __future__ import annotations

import torch

from experiments.attention import kernels
from experiments.graphs import runner
from experiments.models import LoadedModel
from experiments.static_decoder import StaticDecoder
from harness import phases
from harness.phases import PhaseClock

LAG = 2  # steps in flight before the host reads a token: enough to hide a launch, at most LAG steps wasted


class StaticLoop:
    """Encoder, captured prefill and captured step; the end token is looked for LAG steps behind."""

    def __init__(self, loaded: LoadedModel, attention: str, graphs: str, device: str) -> None:
        self._loaded = loaded
        self._encoder = loaded.model.get_encoder()
        self._decoder = StaticDecoder(loaded, attention).eval()
        self._kernels = lambda: kernels(attention, device)
        with torch.inference_mode(), self._kernels():
            self._prefill = runner(self._decoder.prefill, "manual" if graphs != "none" else "none", device)
            self._step = runner(self._decoder.step, graphs, device)
        self._arrivals = _Arrivals(self._decoder.token, loaded.max_new_tokens)

    def decode(self, features: torch.Tensor, clock: PhaseClock) -> list[int]:
        """Token ids of one window, without the prompt and the end token. features: [1, n_mels, 3000]."""
        with self._kernels():
            with clock.phase(phases.ENCODE):
                self._decoder.encoded.copy_(self._encoder(features).last_hidden_state)
            with clock.phase(phases.PREFILL):
                self._prefill()
                self._arrivals.post(0)
            with clock.phase(phases.DECODE):
                return self._steps(clock)

    def _steps(self, clock: PhaseClock) -> list[int]:
        chosen: list[int] = []
        count = self._loaded.max_new_tokens
        for index in range(1, count):
            if index >= LAG and self._arrived(chosen, index - LAG):
                return chosen
            with clock.phase(phases.DECODE_STEP, payload=index):
                self._step()
                self._arrivals.post(index)
        for index in range(len(chosen), count):
            if self._arrived(chosen, index):
                break
        return chosen

    def _arrived(self, chosen: list[int], index: int) -> bool:
        """Append token `index` once it is here; True if it is the end token, which is not appended."""
        token = self._arrivals.get(index)
        if token == self._loaded.end:
            return True
        chosen.append(token)
        return False


class _Arrivals:
    """Copies of each token to the host, with a slot and an event of its own: none waits for another."""

    def __init__(self, token: torch.Tensor, count: int) -> None:
        self._token = token
        on_gpu = token.is_cuda
        self._slots = torch.zeros(count, dtype=torch.long, pin_memory=on_gpu)
        self._events = [torch.cuda.Event() for _ in range(count)] if on_gpu else []

    def post(self, index: int) -> None:
        """Queue the copy of the token that is being decoded."""
        self._slots[index : index + 1].copy_(self._token[0], non_blocking=True)
        if self._events:
            self._events[index].record()

    def get(self, index: int) -> int:
        """Wait for token `index` and return it."""
        if self._events:
            self._events[index].synchronize()
        return int(self._slots[index])
