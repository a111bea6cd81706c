"""The choices that scopes combine, and which of them go together. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError

ATTENTION = ("eager", "sdpa", "flash")
DECODERS = ("generate", "static")
GRAPHS = ("none", "manual", "compile")


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
        options = cls(
            attention=_one_of("attention", cfg["attention"], ATTENTION),
            decoder=_one_of("decoder", cfg["decoder"], DECODERS),
            graphs=_one_of("graphs.how", cfg["graphs"]["how"], GRAPHS),
        )
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


def _one_of(key: str, value: object, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise UserError(f"{key}={value} is not known", f"{key}= one of {', '.join(valid)}")
    return str(value)
