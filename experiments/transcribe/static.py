"""The fast path: windows decoded by captured rounds of static shape, the rows of a batch each at its own
pace.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from experiments import loops
from experiments import network as networks
from experiments.attention import kernels
from experiments.audio import WINDOW_SAMPLES
from experiments.choice import rules_of
from experiments.decode_state import DecodeState, send
from experiments.encoder import Encoder
from experiments.features import LogMel
from experiments.loops import Loop
from experiments.models import LoadedModel
from experiments.network import Network
from experiments.options import Options
from experiments.rounds import GreedyRound, Round
from experiments.static_decoder import aligned
from experiments.transcribe.alignment import Aligner
from experiments.transcribe.decoding import Collect, Decoded, Window
from experiments.transcribe.sampling import SampledRound
from experiments.transcribe.vocabulary import SpecialTokens
from harness import phases
from harness.errors import UserError
from harness.phases import HostTimer, NvtxAnnotator, PhaseClock
from kernels.logit_rules import NEVER, LogitRules


class StaticWindowDecoder:
    """A `WindowDecoder` of `batch` rows on the device of `loaded`; fewer windows leave rows empty.

    options: the mechanisms of a scope. Raises UserError for one that has no static rounds.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        options: Options,
        batch: int,
        prompt_tokens: int = 0,
        word_timestamps: bool = False,
    ) -> None:
        """prompt_tokens: of text before, how many a prompt may hold; word_timestamps: align the tokens."""
        options = _for_rows(options, batch)
        self._options = options
        self.batch = batch
        self._loaded = loaded
        self._device = loaded.model.device
        self._attention = options.attention
        self._new_tokens = loaded.new_tokens or loaded.model.config.max_target_positions // 2
        # Without the mark against timestamps, which ends the prompt of `loaded`.
        prompt_room = len(loaded.prompt) - 1 + (1 + prompt_tokens if prompt_tokens else 0)
        length = aligned(min(prompt_room + self._new_tokens, self._positions))
        self._log_mel = LogMel(loaded.model.config.num_mel_bins).to(self._device)
        self._inbox = _Inbox(batch, self._device)
        self._state = DecodeState.allocate(batch, length, prompt_room, self._device)
        rules = _endless(rules_of(loaded, length, timestamps=True), loaded)
        with torch.inference_mode(), self._kernels():
            network = networks.make(loaded, options, length, self._device.type)
            self._encoder = Encoder(loaded.model.get_encoder(), options.encoder, batch)
            self._prompts = _PromptPass(network, self._encoder.encoded, self._state, loaded)
            self._state.describe_windows([loaded.prompt[:-1]], self._new_tokens, self._positions)
            self._prefill = loops.once(self._prompts, options, self._device.type)
            self._likeliest = self._loop(GreedyRound(network, self._state, rules, options.topk))
        self._sampled_round = SampledRound(network, self._state, rules)
        self._sampled: Loop | None = None
        self._aligner = Aligner(loaded) if word_timestamps else None
        self._alone = threading.Lock()  # threads may share a Transcriber, whose state is one
        self._beside = torch.cuda.Stream() if self._device.type == "cuda" else None

    @torch.inference_mode()
    def queue(self, windows: Sequence[Window]) -> Collect:
        """Hand over 1 to `batch` windows; what is returned waits for their results."""
        clock = PhaseClock(HostTimer(), NvtxAnnotator())
        prompts = [window.prompt for window in windows]
        with self._alone, self._kernels():
            with clock.phase(phases.FEATURES):
                features = self._log_mel(self._inbox.send(windows)).to(self._loaded.model.dtype)
            with clock.phase(phases.ENCODE):
                self._encoder(features)
            with clock.phase(phases.PREFILL):
                loop = self._loop_for(windows)  # may capture it, which uses the state
                self._prompts.expect(prompts)
                self._state.describe_windows(prompts, self._new_tokens, self._positions)
                self._prefill()
            with clock.phase(phases.DECODE):
                loop(clock)
            state = self._state
            # A copy: the next windows will overwrite what was heard in these. Before the results, whose
            # arrival says that it is there.
            encoded = self._encoder.encoded[: len(windows)].clone() if self._aligner else None
            results = _Outbox(state.history, state.position, state.score, self._prompts.no_speech)
        if self._aligner is None or encoded is None:
            return partial(self._decoded, windows, results)
        return partial(self._aligned, self._aligner, windows, results, encoded)

    @torch.inference_mode()
    def _aligned(
        self, aligner: Aligner, windows: Sequence[Window], results: _Outbox, encoded: torch.Tensor
    ) -> list[Decoded]:
        """Beside the decoding of the next windows, on a GPU, and not behind it."""
        found = self._decoded(windows, results)
        with self._alone, self._kernels(), torch.cuda.stream(self._beside):
            return aligner.aligned(encoded, windows, found)

    def _decoded(self, windows: Sequence[Window], results: _Outbox) -> list[Decoded]:
        found = []
        for window, history, last, score, no_speech in zip(windows, *results.wait(), strict=False):
            chosen = history[len(window.prompt) : last + 1]
            tokens = tuple(token for token in chosen if token != self._loaded.end)
            found.append(Decoded(tokens, score / (len(tokens) + 1), no_speech))
        return found

    def _loop_for(self, windows: Sequence[Window]) -> Loop:
        if not any(window.temperature for window in windows):
            return self._likeliest
        absent = [0] * (self.batch - len(windows))
        self._sampled_round.expect(
            [*(window.temperature for window in windows), *absent],
            [*(window.seed for window in windows), *absent],
        )
        if self._sampled is None:  # seldom needed, so captured when it is
            self._sampled = self._loop(self._sampled_round)
        return self._sampled

    def _loop(self, one_round: Round) -> Loop:
        return loops.until_done(one_round, self._state.any_running, self._new_tokens, self._options)

    def _kernels(self) -> AbstractContextManager[None]:
        return kernels(self._attention, self._device.type)

    @property
    def _positions(self) -> int:
        return int(self._loaded.model.config.max_target_positions)


class _Inbox:
    """Two buffers of PCM in turn: one is filled while the device may still read the other."""

    def __init__(self, batch: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._device = device
        count = 2 if on_gpu else 1
        self._buffers = [torch.zeros(batch, WINDOW_SAMPLES, pin_memory=on_gpu) for _ in range(count)]
        self._read: list[torch.cuda.Event | None] = [None] * count
        self._turn = 0

    def send(self, windows: Sequence[Window]) -> torch.Tensor:
        """PCM [windows, 480000] on the device, padded with zeros."""
        self._turn = (self._turn + 1) % len(self._buffers)
        buffer = self._buffers[self._turn]
        if event := self._read[self._turn]:
            event.synchronize()
        for row, window in zip(buffer.numpy(), windows, strict=False):
            row[: len(window.pcm)] = window.pcm
            row[len(window.pcm) :] = 0.0
        there = buffer[: len(windows)].to(self._device, non_blocking=True)
        if self._device.type == "cuda":
            self._read[self._turn] = torch.cuda.current_stream().record_event()
        return there


class _Outbox:
    """Copies of tensors on their way to the host."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        on_gpu = tensors[0].is_cuda
        self._copies = [torch.empty(x.shape, dtype=x.dtype, pin_memory=on_gpu) for x in tensors]
        for copy, x in zip(self._copies, tensors, strict=True):
            copy.copy_(x, non_blocking=True)
        self._arrived = torch.cuda.current_stream().record_event() if on_gpu else None

    def wait(self) -> list[list[Any]]:
        """Their values, once they are here."""
        if self._arrived:
            self._arrived.synchronize()
        return [copy.tolist() for copy in self._copies]


class _PromptPass:
    """What was heard and the prompts into the caches, and the probability that nobody speaks.

    The last token of a prompt is left to the first round: it chooses what follows.
    """

    def __init__(
        self, network: Network, encoded: torch.Tensor, state: DecodeState, loaded: LoadedModel
    ) -> None:
        """no_speech: float32 [B]."""
        self._network = network
        self._encoded = encoded
        self._state = state
        self._start_token = loaded.prompt[0]
        self._no_speech_token = SpecialTokens.of(loaded).no_speech
        self._start = torch.zeros_like(state.begin)
        self.no_speech = torch.zeros_like(state.score)

    def expect(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Note where each prompt has its start token: there the model says whether anyone speaks."""
        places = [prompt.index(self._start_token) for prompt in prompts]
        send([*places, *[0] * (self._state.rows - len(places))], self._start)

    def __call__(self) -> None:
        state = self._state
        state.reset()
        self._network.begin_window(self._encoded)
        # Rows with shorter prompts read on behind them; those keys and values are overwritten before they
        # count.
        places = state.offsets[: state.prompt.shape[1]].expand_as(state.prompt)
        logits = self._network.logits_at(state.history, places, self._start)
        self.no_speech.copy_(logits.float().softmax(-1)[:, self._no_speech_token])


def _endless(rules: LogitRules, loaded: LoadedModel) -> LogitRules:
    """For a model that has to give an exact number of tokens (random weights): never the end token."""
    if loaded.new_tokens is not None:
        rules.banned[loaded.end] |= NEVER
    return rules


def _for_rows(options: Options, batch: int) -> Options:
    """The mechanisms for a batch."""
    if options.speculate.drafts:
        raise UserError(
            "the pipeline has no speculative rounds: rows of a batch would wait for each other's drafts",
            "a --scope without a draft, such as optimized",
        )
    # Timestamps have rules, and segments are judged by their log-probabilities: argmax has neither.
    topk = "torch" if options.topk == "argmax" else options.topk
    return dataclasses.replace(options, batch=batch, topk=topk)
