"""The network: transformers' Whisper in small, and the pieces of it that training calls by itself."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForCausalLM, WhisperForConditionalGeneration

from experiments.train.recipe import Recipe
from experiments.train.tokens import TEXT_TOKENS, VOCAB_SIZE, Ids

BLANK = TEXT_TOKENS  # of CTC


def config(recipe: Recipe) -> WhisperConfig:
    """Whisper's architecture in the recipe's size."""
    ids = Ids()
    return WhisperConfig(
        vocab_size=VOCAB_SIZE,
        d_model=recipe.d_model,
        encoder_layers=recipe.encoder_layers,
        decoder_layers=recipe.decoder_layers,
        encoder_attention_heads=recipe.heads,
        decoder_attention_heads=recipe.heads,
        encoder_ffn_dim=recipe.encoder_ffn_dim,
        decoder_ffn_dim=recipe.decoder_ffn_dim,
        bos_token_id=ids.end,
        eos_token_id=ids.end,
        pad_token_id=ids.end,
        decoder_start_token_id=ids.start,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )


def generation_config() -> GenerationConfig:
    """What decoding has to know. Unlike OpenAI's, this model may end at once: silence has no text."""
    ids = Ids()
    return GenerationConfig(
        bos_token_id=ids.end,
        eos_token_id=ids.end,
        pad_token_id=ids.end,
        decoder_start_token_id=ids.start,
        is_multilingual=True,
        lang_to_id={"<|en|>": ids.english},
        task_to_id={"transcribe": ids.transcribe, "translate": ids.translate},
        no_timestamps_token_id=ids.no_timestamps,
        prev_sot_token_id=ids.previous,
        suppress_tokens=list(range(ids.start, ids.no_timestamps)),
        begin_suppress_tokens=[],
        language="en",
        task="transcribe",
        return_timestamps=False,
        max_length=448,
    )


def new_model(recipe: Recipe) -> WhisperForConditionalGeneration:
    """Weights drawn with torch's generator as it is seeded."""
    whisper = config(recipe)
    whisper._attn_implementation = "sdpa"
    model = WhisperForConditionalGeneration(whisper)
    model.generation_config = generation_config()
    return model


class Encode(torch.nn.Module):
    """The encoder on windows of any length: mel [B, n_mels, 2 T] -> [B, T, d_model].

    transformers' own forward insists on 30 s; short windows make the first half of training fast.
    """

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        encoder = self.encoder
        hidden = torch.nn.functional.gelu(encoder.conv1(mel))
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
        return encoder.layer_norm(hidden)


class Decode(torch.nn.Module):
    """Teacher-forced logits [B, L, vocabulary] of decoder inputs [B, L], given the encoder's [B, T, d_model].

    transformers' own forward builds a mask, which can't be captured and which causal attention doesn't need.
    """

    def __init__(self, model: WhisperForConditionalGeneration | WhisperForCausalLM) -> None:
        super().__init__()
        self.decoder = model.get_decoder()
        self.proj_out = model.proj_out

    def forward(self, encoded: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        decoder = self.decoder
        hidden = decoder.embed_tokens(ids) + decoder.embed_positions.weight[: ids.shape[1]]
        for layer in decoder.layers:
            hidden = layer(hidden, encoder_hidden_states=encoded, use_cache=False)
        return self.proj_out(decoder.layer_norm(hidden))
