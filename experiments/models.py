"""Whisper checkpoints: from the hub, its cache, a folder, or seeded random weights of given shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    WhisperConfig,
    WhisperForConditionalGeneration,
    logging,
)

from experiments.attention import implementation
from harness.errors import ExitCode, UserError


@dataclass(frozen=True)
class LoadedModel:
    """A Whisper and what decoding needs to know of it.

    prompt: token ids that every window starts with; language: None for an English-only checkpoint;
    suppress / begin_suppress: ids never chosen / not chosen first; new_tokens: exact number of tokens to
    decode, or None to decode until the end token.
    """

    model: WhisperForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    language: str | None
    prompt: tuple[int, ...]
    end: int
    suppress: tuple[int, ...]
    begin_suppress: tuple[int, ...]
    new_tokens: int | None

    @property
    def max_new_tokens(self) -> int:
        """How many tokens may follow the prompt."""
        return self.new_tokens or self.model.config.max_target_positions - len(self.prompt)

    def text(self, tokens: list[int]) -> str | None:
        """Words of `tokens`, or None for a model that has no vocabulary (random weights)."""
        if self.tokenizer is None:
            return None
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def device_for(wanted: str) -> str:
    """`cuda` or `cpu` for `auto`, `cuda` or `cpu`. Raises UserError where there is no GPU for `cuda`."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda, but torch finds no GPU here",
            "--device auto, or python -m harness.doctor to see what is missing",
            ExitCode.MACHINE,
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def load(
    cfg: Mapping[str, Any], attention: str, language: str, device: str, max_new_tokens: int | None
) -> LoadedModel:
    """Load `cfg` (a conf/model choice) onto `device`: fp16 on a GPU, fp32 on a CPU.

    Raises UserError if the checkpoint can't be had, naming the choices that need no hub.
    """
    logging.set_verbosity_error()  # its advice on generate's arguments is not for the user of a scope
    dtype = torch.float16 if device == "cuda" else torch.float32
    if cfg["source"] == "random":
        model, tokenizer = _random(cfg, implementation(attention)), None
    else:
        model, tokenizer = _pretrained(cfg.get("path") or cfg["name"], implementation(attention))
    model = model.to(device=device, dtype=dtype).eval()
    rules = model.generation_config
    prompt = _prompt(rules, language)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=str(cfg["name"]),
        language=language if getattr(rules, "is_multilingual", False) else None,
        prompt=prompt,
        end=int(model.config.eos_token_id),
        suppress=tuple(rules.suppress_tokens or ()),
        begin_suppress=tuple(rules.begin_suppress_tokens or ()),
        new_tokens=_new_tokens(cfg, max_new_tokens, model.config.max_target_positions, len(prompt)),
    )


def _new_tokens(cfg: Mapping[str, Any], wanted: int | None, positions: int, prompt: int) -> int | None:
    count = wanted if wanted is not None else cfg["new_tokens"]
    room = positions - prompt
    if count is not None and not 2 <= count <= room:
        raise UserError(
            f"max_new_tokens={count} does not fit {cfg['name']}: its decoder has {positions} positions, "
            f"{prompt} of them taken by the prompt",
            f"max_new_tokens= 2 to {room}",
        )
    return count


def _prompt(rules: GenerationConfig, language: str) -> tuple[int, ...]:
    """The window's first tokens: start, language and task (multilingual checkpoints), no timestamps.

    Raises UserError for a language that the model doesn't know.
    """
    prompt = [rules.decoder_start_token_id]
    if getattr(rules, "is_multilingual", False):
        token = f"<|{language}|>"
        if token not in rules.lang_to_id:
            known = ", ".join(sorted(name.strip("<|>") for name in rules.lang_to_id))
            raise UserError(
                f"audio.language={language} is not spoken by this model", f"audio.language= one of {known}"
            )
        prompt += [rules.lang_to_id[token], rules.task_to_id["transcribe"]]
    elif language != "en":
        raise UserError(
            f"audio.language={language}, but this model is English only",
            "audio.language= en, or a model of many languages",
        )
    return (*prompt, rules.no_timestamps_token_id)


def _pretrained(name: str, attn: str) -> tuple[WhisperForConditionalGeneration, PreTrainedTokenizerBase]:
    is_folder = name.startswith((".", "/", "~")) or Path(name).is_dir()
    source = str(Path(name).expanduser()) if is_folder else name
    try:
        if is_folder and not Path(source).is_dir():
            raise ValueError("there is no such folder")
        model = WhisperForConditionalGeneration.from_pretrained(source, attn_implementation=attn)
        tokenizer = AutoTokenizer.from_pretrained(source)
        if len(tokenizer) < model.config.eos_token_id:
            raise ValueError("it has no tokenizer for its tokens")
        if not hasattr(model.generation_config, "no_timestamps_token_id"):
            raise ValueError("its generation_config.json is absent or not Whisper's")
    except Exception as problem:  # a damaged checkpoint fails in as many ways as it has files
        where = "that folder" if is_folder else "the model hub or its local cache"
        raise UserError(
            f"model {name!r} could not be loaded from {where} ({_first_line(problem)})",
            "model.name=/folder/of/a/whisper/checkpoint, or a model that needs no hub: model=bundled "
            "(words), model=whisper_small_random (timing) or model=tiny_random (the fastest)",
            ExitCode.INPUT,
        ) from problem
    return model, tokenizer


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__).rstrip(".")


def _random(cfg: Mapping[str, Any], attn: str) -> WhisperForConditionalGeneration:
    """Seeded random weights of the given shapes, with the special tokens of a real Whisper."""
    shape, special = cfg["shape"], cfg["shape"]["special"]
    ends = {name: special["end"] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = WhisperConfig(
        vocab_size=shape["vocab_size"],
        d_model=shape["d_model"],
        encoder_layers=shape["layers"],
        decoder_layers=shape["layers"],
        encoder_attention_heads=shape["heads"],
        decoder_attention_heads=shape["heads"],
        encoder_ffn_dim=4 * shape["d_model"],
        decoder_ffn_dim=4 * shape["d_model"],
        max_target_positions=shape["max_target_positions"],
        init_std=shape["init_std"],
        decoder_start_token_id=special["start"],
        begin_suppress_tokens=None,
        suppress_tokens=None,
        **ends,
    )
    config._attn_implementation = attn
    with torch.random.fork_rng():
        torch.manual_seed(cfg["seed"])
        model = WhisperForConditionalGeneration(config)
    # Special and timestamp tokens get logit 0, below the largest of the others, so that greedy decoding
    # neither ends early nor meets a timestamp: max_new_tokens are decoded, without a rule at each step.
    model.get_input_embeddings().weight.data[special["end"] :] = 0.0
    model.generation_config = GenerationConfig(
        decoder_start_token_id=special["start"],
        is_multilingual=True,
        lang_to_id={"<|en|>": special["english"]},
        task_to_id={"translate": special["translate"], "transcribe": special["transcribe"]},
        no_timestamps_token_id=special["no_timestamps"],
        suppress_tokens=list(shape["suppress"]),
        begin_suppress_tokens=list(shape["begin_suppress"]),
        **ends,
    )
    return model
