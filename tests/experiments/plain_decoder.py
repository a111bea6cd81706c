"""What the fast decoder is held to: transformers' model, one row and one token at a time, in plain steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers.generation import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from experiments.audio import WINDOW_SAMPLES
from experiments.features import LogMel
from experiments.models import LoadedModel
from experiments.transcribe.decoding import Collect, Decoded, Window
from experiments.transcribe.vocabulary import SpecialTokens


class PlainDecoder:
    def __init__(self, loaded: LoadedModel, batch: int = 1) -> None:
        self.batch = batch
        self._loaded = loaded
        self._log_mel = LogMel(loaded.model.config.num_mel_bins).to(loaded.model.device)
        self._special = SpecialTokens.of(loaded)

    def queue(self, windows: Sequence[Window]) -> Collect:
        found = [self._decode(window) for window in windows]
        return lambda: found

    @torch.inference_mode()
    def _decode(self, window: Window) -> Decoded:
        loaded, special = self._loaded, self._special
        pcm = np.zeros((1, WINDOW_SAMPLES), np.float32)
        pcm[0, : len(window.pcm)] = window.pcm
        features = self._log_mel(torch.from_numpy(pcm).to(loaded.model.device)).to(loaded.model.dtype)
        encoded = loaded.model.get_encoder()(features).last_hidden_state
        rules = self._rules(len(window.prompt))
        ids = torch.tensor([window.prompt], device=encoded.device)
        noise = torch.Generator(encoded.device).manual_seed(window.seed)
        found = loaded.model(decoder_input_ids=ids, encoder_outputs=(encoded,), use_cache=True)
        start = window.prompt.index(loaded.model.generation_config.decoder_start_token_id)
        no_speech = found.logits[0, start].softmax(-1)[special.no_speech]
        score, limit = 0.0, loaded.model.config.max_target_positions // 2
        while True:
            logits = found.logits[:, -1].float()
            for rule in rules:
                logits = rule(ids, logits)
            logprobs = logits.log_softmax(-1)
            if window.temperature:
                token = int(torch.multinomial((logits / window.temperature).softmax(-1), 1, generator=noise))
            else:
                token = int(logits.argmax(-1))
            score += float(logprobs[0, token])
            if token == loaded.end or ids.shape[1] - len(window.prompt) == limit:
                break
            ids = torch.cat([ids, torch.tensor([[token]], device=encoded.device)], dim=1)
            found = loaded.model(
                decoder_input_ids=ids[:, -1:],
                encoder_outputs=(encoded,),
                past_key_values=found.past_key_values,
                use_cache=True,
            )
        tokens = ids[0, len(window.prompt) :].tolist()
        return Decoded(tuple(tokens), score / (len(tokens) + 1), float(no_speech))

    def _rules(self, begin: int) -> list:
        loaded = self._loaded
        rules = [
            SuppressTokensLogitsProcessor(list(loaded.suppress)),
            WhisperTimeStampLogitsProcessor(loaded.model.generation_config, begin_index=begin),
        ]
        if loaded.begin_suppress:
            rules.insert(0, SuppressTokensAtBeginLogitsProcessor(list(loaded.begin_suppress), begin))
        return rules
