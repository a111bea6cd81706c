"""The choices that scopes combine, and which of them go together. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import settings
from harness.errors import UserError

RULES = {
    "attention": settings.one_of("eager", "sdpa", "flash"),
    "decoder": settings.one_of("generate", "static"),
    "graphs.how": settings.one_of("none", "manual", "compile"),
    "max_new_tokens": settings.whole(2).or_null(),
    "model.name": settings.text("the name of a model"),
    "model.source": settings.one_of("random", "pretrained"),
    "model.new_tokens": settings.whole(2).or_null(),
    "audio.path": settings.text("the path of a sound file or a folder of them"),
    "audio.language": settings.text("the code of a language, like en"),
    "audio.max_seconds": settings.POSITIVE,
}
_TOKENS = settings.Rule(
    "a list of token ids", lambda ids: isinstance(ids, Sequence) and all(type(token) is int for token in ids)
)
# What a model with source=random has besides.
RANDOM_RULES = {
    "model.seed": settings.whole(0),
    "model.shape.vocab_size": settings.whole(1),
    "model.shape.d_model": settings.whole(1),
    "model.shape.init_std": settings.POSITIVE,
    "model.shape.layers": settings.whole(1),
    "model.shape.heads": settings.whole(1),
    "model.shape.max_target_positions": settings.whole(1),
    **{
        f"model.shape.special.{name}": settings.whole(0)
        for name in ("end", "start", "english", "translate", "transcribe", "no_timestamps")
    },
    "model.shape.suppress": _TOKENS,
    "model.shape.begin_suppress": _TOKENS,
}


@dataclass(frozen=True)
class Options:
    """What a scope switches on.

    attention: `eager` (matmul, softmax, matmul), `sdpa` (PyTorch picks a fused kernel), `flash` (SDPA held to
        FlashAttention).
    decoder: `generate` (transformers' own loop) or `static` (this project's step of constant shape).
    graphs: how the static step is captured: `none`, `manual` (torch.cuda.CUDAGraph) or `compile`
        (torch.compile, mode="reduce-overhead").
    """

    attention: str
    decoder: str
    graphs: str

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> Options:
        """Read and check the choices; raises UserError naming what is valid."""
        settings.check(cfg, RULES)
        if "path" in cfg["model"]:
            settings.check(cfg, {"model.path": settings.text("the folder of a checkpoint")})
        if cfg["model"]["source"] == "random":
            settings.check(cfg, RANDOM_RULES)
        options = cls(cfg["attention"], cfg["decoder"], cfg["graphs"]["how"])
        if options.graphs != "none" and options.decoder != "static":
            raise UserError(
                f"graphs.how={options.graphs} can't be combined with decoder={options.decoder}: "
                "generate's tensors change shape and address at every step, and a graph replays fixed ones",
                "decoder=static, or graphs.how=none",
            )
        if options.attention == "flash" and options.decoder == "static":
            raise UserError(
                "attention=flash can't be combined with decoder=static: PyTorch's flash kernel takes no "
                "mask, and a cache of constant size needs one",
                "attention=sdpa with decoder=static, or decoder=generate",
            )
        return options
