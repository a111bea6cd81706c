"""The draft: a decoder of one layer that proposes tokens for a larger Whisper to verify.

It shares what it can with its model: the encoder, the token and position embeddings, and the keys and values
of the model's last cross-attention. Its file holds the rest, so it is useless without its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperForCausalLM, WhisperForConditionalGeneration

from harness.errors import ExitCode, UserError

FILE_NAME = "draft.safetensors"


def new_draft(model: WhisperForConditionalGeneration, ffn_dim: int) -> WhisperForCausalLM:
    """A draft for `model` with untrained weights of its own, on the model's device and in its dtype.

    transformers' `generate(assistant_model=...)` takes it as it is.
    """
    raw = model.config.to_dict() | {
        "decoder_layers": 1,
        "decoder_ffn_dim": ffn_dim,
        "is_encoder_decoder": False,
        "architectures": ["WhisperForCausalLM"],
    }
    config = WhisperConfig(**raw)
    config._attn_implementation = model.config._attn_implementation
    draft = WhisperForCausalLM(config).to(device=model.device, dtype=model.dtype)
    _share(draft, model)
    return draft


def _share(draft: WhisperForCausalLM, model: WhisperForConditionalGeneration) -> None:
    """Let the draft use the model's own modules; they are one object in memory."""
    theirs, own = model.get_decoder(), draft.get_decoder()
    own.embed_tokens = theirs.embed_tokens
    own.embed_positions = theirs.embed_positions
    own.layers[0].encoder_attn.k_proj = theirs.layers[-1].encoder_attn.k_proj
    own.layers[0].encoder_attn.v_proj = theirs.layers[-1].encoder_attn.v_proj
    draft.proj_out = model.proj_out


def own_parameters(
    draft: WhisperForCausalLM, model: WhisperForConditionalGeneration
) -> dict[str, torch.nn.Parameter]:
    """The draft's parameters that are not its model's, by name."""
    shared = {id(parameter) for parameter in model.parameters()}
    return {name: p for name, p in draft.named_parameters() if id(p) not in shared}


def draft_of(model: WhisperForConditionalGeneration, cfg: Mapping[str, Any]) -> WhisperForCausalLM:
    """The draft for a conf/model choice: what lies beside a checkpoint, or, for random weights, as random
    ones. Raises UserError."""
    if cfg["source"] == "pretrained":
        return load(Path(cfg.get("path") or cfg["name"]).expanduser(), model)
    with torch.random.fork_rng():
        torch.manual_seed(cfg["seed"])
        return new_draft(model, model.config.decoder_ffn_dim).eval()


def save(draft: WhisperForCausalLM, model: WhisperForConditionalGeneration, folder: Path) -> None:
    """Write the draft's own weights in fp16 into `folder`."""
    own = own_parameters(draft, model)
    tensors = {name: p.detach().to(torch.float16).contiguous().cpu() for name, p in own.items()}
    save_file(tensors, folder / FILE_NAME, metadata={"format": "pt"})


def load(folder: Path, model: WhisperForConditionalGeneration) -> WhisperForCausalLM:
    """The draft of `model` from `folder`; UserError if there is none, or if it is another model's."""
    path = folder / FILE_NAME
    try:
        tensors = load_file(path)
        draft = new_draft(model, ffn_dim=len(tensors["model.decoder.layers.0.fc1.bias"]))
        own = own_parameters(draft, model)
        if tensors.keys() != own.keys() or any(tensors[name].shape != p.shape for name, p in own.items()):
            raise KeyError("its tensors are not those of a draft for this model")
    except Exception as problem:  # safetensors raises its own type, which it does not export
        raise UserError(
            f"{path} is no draft for this model ({problem})",
            "model=bundled, which ships with one",
            ExitCode.INPUT,
        ) from problem
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return draft.eval()
