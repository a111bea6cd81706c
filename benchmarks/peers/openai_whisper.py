"""openai-whisper, as it is installed: its features, its model, its `decode`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.peers import windows
from benchmarks.peers.contenders import OPENAI_WHISPER, Task, model
from benchmarks.peers.timed import Marks, timed
from experiments import models
from experiments.models import LoadedModel
from harness import phases
from harness.errors import ExitCode, UserError
from harness.phases import PhaseClock

# transformers' names to openai's, in this order.
_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^model\.", ""),
        (r"\.layers\.", ".blocks."),
        (r"\.embed_positions\.weight$", ".positional_embedding"),
        (r"\.embed_tokens\.", ".token_embedding."),
        (r"\.self_attn_layer_norm\.", ".attn_ln."),
        (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
        (r"\.final_layer_norm\.", ".mlp_ln."),
        (r"^encoder\.layer_norm\.", "encoder.ln_post."),
        (r"^decoder\.layer_norm\.", "decoder.ln."),
        (r"\.self_attn\.", ".attn."),
        (r"\.encoder_attn\.", ".cross_attn."),
        (r"\.q_proj\.", ".query."),
        (r"\.k_proj\.", ".key."),
        (r"\.v_proj\.", ".value."),
        (r"\.out_proj\.", ".out."),
        (r"\.fc1\.", ".mlp.0."),
        (r"\.fc2\.", ".mlp.2."),
    )
)


def measure(task: Task, _: str) -> dict[str, Any]:
    notes = ["step and window include that it turns the tokens into text"]
    if task.device == "cuda":
        notes.append("weights kept in fp32 and cast in every call, as load_model leaves them")
    return timed(OpenaiWhisper(task), task) | {"notes": notes}


class OpenaiWhisper:
    """One call of `whisper.decode` for all windows."""

    def __init__(self, task: Task) -> None:
        self._whisper = _installed()
        loaded = models.load(model(task.model), "eager", "en", "cpu", task.tokens)
        self._task = task
        self._model = converted(loaded, self._whisper).to(task.device)
        self._windows = windows.read(task.sound)
        self._options = self._whisper.DecodingOptions(
            language="en",
            without_timestamps=True,
            sample_len=task.tokens,
            # As text: a list would be appended to in every call. The blank and the end token, which are
            # `begin_suppress`, are suppressed at first by default.
            suppress_tokens=",".join(map(str, loaded.suppress)),
            fp16=task.device == "cuda",
        )
        self._tokens: list[list[int]] = []
        self._marks = Marks(task.tokens)
        self._model.encoder.register_forward_pre_hook(self._marks.encoder_begins)
        self._model.encoder.register_forward_hook(self._marks.encoder_ends)
        self._model.decoder.register_forward_pre_hook(self._decoder_begins)

    def run(self, clock: PhaseClock) -> None:
        with clock.phase(phases.FEATURES):
            mel = self._features()
        with self._marks.on(clock):
            self._calls = 0
            results = self._whisper.decode(self._model, mel, self._options)
            self._marks.token_chosen()
        self._tokens = [result.tokens for result in results]

    def _decoder_begins(self, *_: object) -> None:
        """Since the decoder's last call in this iteration a token has been chosen."""
        self._calls += 1
        if self._calls > 1:
            self._marks.token_chosen()

    def tokens(self) -> list[list[int]]:
        return self._tokens

    def _features(self) -> torch.Tensor:
        """Log-mel [batch, n_mels, 3000]. One by one: it scales by the maximum of all that it is given."""
        log_mel, mels = self._whisper.log_mel_spectrogram, self._model.dims.n_mels
        return torch.stack([log_mel(pcm, mels, device=self._task.device) for pcm in self._windows])


def converted(loaded: LoadedModel, whisper: Any) -> Any:
    """openai's model with the weights of `loaded`, and with its special tokens."""
    config = loaded.model.config
    if config.vocab_size != 51865:  # of openai's multilingual models
        tokenizer = _small_tokenizer(config.vocab_size, loaded, whisper)
        whisper.decoding.get_tokenizer = lambda *_, **__: tokenizer
    built = whisper.model.Whisper(
        whisper.model.ModelDimensions(
            n_mels=config.num_mel_bins,
            n_audio_ctx=config.max_source_positions,
            n_audio_state=config.d_model,
            n_audio_head=config.encoder_attention_heads,
            n_audio_layer=config.encoder_layers,
            n_vocab=config.vocab_size,
            n_text_ctx=config.max_target_positions,
            n_text_state=config.d_model,
            n_text_head=config.decoder_attention_heads,
            n_text_layer=config.decoder_layers,
        )
    )
    built.load_state_dict(renamed(loaded.model.state_dict()))
    return built.eval()


def renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' weights under openai's names, without the output projection, which is the embedding."""
    found = {}
    for theirs, weight in weights.items():
        if theirs == "proj_out.weight":
            continue
        name = theirs
        for pattern, replacement in _NAMES:
            name = pattern.sub(replacement, name)
        found[name] = weight
    return found


def _small_tokenizer(vocabulary: int, loaded: LoadedModel, whisper: Any) -> Any:
    """openai's tokenizer for a vocabulary that is too small for it: its first words and our special ids."""
    import tiktoken

    start, english, transcribe, no_timestamps = loaded.prompt
    full = whisper.tokenizer.get_encoding("multilingual")
    special = {
        "<|endoftext|>": loaded.end,
        "<|startoftranscript|>": start,
        "<|en|>": english,
        "<|translate|>": transcribe - 1,
        "<|transcribe|>": transcribe,
        "<|notimestamps|>": no_timestamps,
        "<|startoflm|>": no_timestamps + 1,
        "<|startofprev|>": no_timestamps + 2,
        "<|nospeech|>": no_timestamps + 3,
        **{f"<|{0.02 * n:.2f}|>": no_timestamps + 4 + n for n in range(vocabulary - no_timestamps - 4)},
    }
    words = {full.decode_single_token_bytes(token): token for token in range(loaded.end)}
    encoding = tiktoken.Encoding("small", pat_str=r"\s+|\S+", mergeable_ranks=words, special_tokens=special)
    return whisper.tokenizer.Tokenizer(encoding, num_languages=1, language="en", task="transcribe")


def _installed() -> Any:
    try:
        import whisper
        import whisper.model
    except ImportError as problem:
        raise UserError(
            f"openai-whisper can't be imported ({problem})",
            f"pip install {OPENAI_WHISPER}",
            ExitCode.MACHINE,
        ) from None
    return whisper
