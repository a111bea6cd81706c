"""Windows to tokens by decode rounds of static shape: encoder, prefill, rounds, and one look at the
result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import WhisperForCausalLM

from experiments import loops
from experiments import network as networks
from experiments.attention import kernels
from experiments.choice import rules_of
from experiments.decode_state import DecodeState
from experiments.encoder import Encoder
from experiments.models import LoadedModel
from experiments.network import Network
from experiments.options import Options
from experiments.rounds import GreedyRound, Prefill, Round
from experiments.speculate import Script, SpeculativeRound
from experiments.static_decoder import StaticDecoder, aligned
from harness import phases
from harness.phases import HostTimer, PhaseClock, SilentAnnotator

Prompt = tuple[int, ...]


class StaticLoop:
    """Up to `options.batch` windows at once; with graphs, prefill and round are captured once."""

    def __init__(
        self,
        loaded: LoadedModel,
        options: Options,
        device: str,
        draft: WhisperForCausalLM | None = None,
        prompt_room: int | None = None,
        timestamps: bool = False,
    ) -> None:
        """draft: that of options.speculate; prompt_room: tokens of the longest prompt, by default that of
        `loaded`; timestamps: whether Whisper's rules for them hold (the prompt then must not forbid them)."""
        self._loaded = loaded
        self._options = options
        self._device = device
        room = prompt_room or len(loaded.prompt)
        length = self._length(room)
        self._state = DecodeState.allocate(options.batch, length, room, loaded.model.device)
        self._rules = rules_of(loaded, length, timestamps)
        self._script: Script | None = None
        self._described: list[Prompt] = []
        with torch.inference_mode(), kernels(options.attention, device):
            network = networks.make(loaded, options, length, device)
            draft_network = self._draft_network(draft, network) if draft else None
            self._encoder = Encoder(loaded.model.get_encoder(), options.encoder, options.batch)
            given = self._state, self._rules, options.topk
            prefill = Prefill(network, draft_network, self._encoder.encoded, *given)
            self._describe([loaded.prompt[:room]])
            one_round = self._round_of(network, draft_network)
            self._prefill = loops.once(prefill, options, device)
            most_rounds = loaded.max_new_tokens - 1  # the first token is the prefill's
            self._loop = loops.until_done(one_round, self._state.any_running, most_rounds, options)

    def _length(self, prompt_room: int) -> int:
        """Of history and caches. Drafts may stand up to K places behind the last token that is taken."""
        tokens = min(prompt_room + self._loaded.max_new_tokens, self._positions)
        drafts = self._options.speculate.drafts
        return aligned(tokens + (drafts + 1 if drafts else 0))

    @property
    def _positions(self) -> int:
        return int(self._loaded.model.config.max_target_positions)

    def _draft_network(self, draft: WhisperForCausalLM, network: Network) -> Network:
        rows, length = self._state.history.shape
        shared = network.cross_cache[-1:]
        attention = networks.attention_of(self._options, self._device)
        decoder = StaticDecoder(draft.get_decoder(), attention, rows, length, shared)
        return networks.computed(decoder, self._options, self._device)

    def _round_of(self, network: Network, draft: Network | None) -> Round:
        state, rules, topk, how = self._state, self._rules, self._options.topk, self._options.speculate
        if draft is None:
            return GreedyRound(network, state, rules, topk)
        if how.acceptance is not None:
            self._script = Script(state, self._loaded.model.config.vocab_size, how.drafts, how.acceptance)
        return SpeculativeRound(network, draft, state, rules, topk, how.drafts, self._script)

    def decode(
        self,
        features: torch.Tensor,
        clock: PhaseClock,
        prompts: Sequence[Prompt] | None = None,
        known: torch.Tensor | None = None,
    ) -> list[list[int]]:
        """Token ids of each window, without prompt and end token. features: [1 to B, n_mels, 3000]; prompts:
        of each window, by default that of the model; known: what `learn` found, where proposals are
        scripted."""
        prompts = prompts or [self._loaded.prompt] * len(features)
        with torch.inference_mode(), kernels(self._options.attention, self._device):
            with clock.phase(phases.ENCODE):
                self._encoder(features)
            with clock.phase(phases.PREFILL):
                if self._script and known is not None:
                    self._script.follow(known)
                self._describe(prompts)
                self._prefill()
            with clock.phase(phases.DECODE):
                self._loop(clock)
                return self._result(clock, prompts)

    @torch.inference_mode()
    def learn(self, features: torch.Tensor) -> torch.Tensor:
        """The history of greedy decoding, int64 [B, T], for scripted proposals: those of the verifying pass
        itself, with proposals that are wrong, so that near-ties are decided alike."""
        if self._script is None:
            raise ValueError("proposals are not scripted")
        self._script.never_agree()
        self.decode(features, PhaseClock(HostTimer(), SilentAnnotator()))
        return self._state.history.clone()

    def _describe(self, prompts: Sequence[Prompt]) -> None:
        if list(prompts) != self._described:
            self._described = list(prompts)
            self._state.describe_windows(prompts, self._loaded.max_new_tokens, self._positions)

    def _result(self, clock: PhaseClock, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Wait for the device, and count what it did."""
        state = self._state
        copies = [x.to("cpu", non_blocking=True) for x in (state.history, state.position, state.rounds)]
        if self._device == "cuda":
            torch.cuda.current_stream().synchronize()
        history, position, rounds = (copy.tolist() for copy in copies)
        tokens, decoded, taken = [], 0, 0
        for row, prompt in enumerate(prompts):
            begin, last = len(prompt), position[row]
            tokens.append([token for token in history[row][begin : last + 1] if token != self._rules.end])
            decoded += rounds[row] - 1  # the prefill is none
            taken += last - begin
        clock.count(phases.ROUNDS, decoded)
        if drafts := self._options.speculate.drafts:
            clock.count(phases.DRAFTED, drafts * decoded)
            clock.count(phases.ACCEPTED, taken - decoded)
        return tokens
