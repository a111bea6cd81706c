"""The choices that scopes combine, and which of them go together. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import settings
from harness.errors import UserError

MOST_DRAFTS = 7  # with the last known token, eight queries a row

RULES = {
    "attention": settings.one_of("eager", "sdpa", "flash", "kernel"),
    "decoder": settings.one_of("generate", "static", "fused"),
    "graphs.how": settings.one_of("none", "manual", "compile"),
    "loop": settings.one_of("host", "device"),
    "batch": settings.whole(1),
    "topk": settings.one_of("argmax", "torch", "fused"),
    "encoder": settings.one_of("eager", "manual", "compile"),
    "quantize": settings.one_of("none", "int8", "int8_dynamic", "float8"),
    "speculate.how": settings.one_of("none", "draft", "scripted"),
    "speculate.tokens": settings.Rule(
        f"a whole number from 1 to {MOST_DRAFTS}",
        lambda value: type(value) is int and 1 <= value <= MOST_DRAFTS,
    ),
    "speculate.acceptance": settings.Rule(
        "a share from 0 to 1, or null",
        lambda value: value is None or (settings.is_number(value) and 0 <= value <= 1),
    ),
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
class Speculation:
    """how: `none`, `draft` (a network of one layer proposes tokens) or `scripted` (it computes as many, but
    what is proposed is accepted as often as `acceptance` says). tokens: proposals a round.
    """

    how: str = "none"
    tokens: int = 3
    acceptance: float | None = None

    @property
    def drafts(self) -> int:
        """Proposals a round, 0 without speculation."""
        return 0 if self.how == "none" else self.tokens


@dataclass(frozen=True)
class Options:
    """What a scope switches on.

    attention: `eager` (matmul, softmax, matmul), `sdpa` (PyTorch picks a fused kernel), `flash` (SDPA held to
        FlashAttention) or `kernel` (this project's over the decoder's caches, SDPA elsewhere).
    decoder: `generate` (transformers' own loop), `static` (this project's round of constant shape) or `fused`
        (the same with CUDA kernels of its own: all of a step for one window, attention for more).
    graphs: how the static round is captured: `none`, `manual` (torch.cuda.CUDAGraph) or `compile` (the same
        of a step that torch.compile has fused).
    loop: who repeats the round: the `host`, a launch each, or the `device`, one launch for all.
    batch: windows that are decoded together.
    topk: how a token is chosen: the `argmax` of what isn't suppressed; under all of Whisper's rules, with its
        log-probability, by operations of `torch`; or the same by one `fused` kernel.
    encoder: `eager`, `manual` (captured) or `compile` (compiled and captured).
    quantize: the decoder's weights, not those of a draft: `none`, `int8`, `int8_dynamic` (activations, too)
        or `float8`.
    """

    attention: str = "eager"
    decoder: str = "generate"
    graphs: str = "none"
    loop: str = "host"
    batch: int = 1
    topk: str = "argmax"
    encoder: str = "eager"
    quantize: str = "none"
    speculate: Speculation = Speculation()

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> Options:
        """Read and check the choices; raises UserError naming what is valid."""
        settings.check(cfg, RULES)
        if "path" in cfg["model"]:
            settings.check(cfg, {"model.path": settings.text("the folder of a checkpoint")})
        if cfg["model"]["source"] == "random":
            settings.check(cfg, RANDOM_RULES)
        speculate = cfg["speculate"]
        options = cls(
            graphs=cfg["graphs"]["how"],
            speculate=Speculation(speculate["how"], speculate["tokens"], speculate["acceptance"]),
            **{name: cfg[name] for name in _PLAIN},
        )
        _refuse(options)
        return options

    def without_gpu(self) -> list[str]:
        """What of these choices a CPU can't do, as sentences, and what happens instead."""
        notes = []
        if self.graphs != "none":
            notes.append("CUDA graphs need a GPU: on this CPU the round ran uncaptured (same tokens)")
        if self.loop == "device":
            notes.append("loop=device needs a GPU: on this CPU the host queued each round (same tokens)")
        if self.attention == "kernel":
            notes.append("attention=kernel needs a GPU: on this CPU SDPA attended (same tokens)")
        if self.decoder == "fused":
            notes.append("decoder=fused needs a GPU: on this CPU torch computed the decoder (same tokens)")
        if self.topk == "fused":
            notes.append("topk=fused needs a GPU: on this CPU its reference in torch ran (same tokens)")
        if self.quantize != "none":
            notes.append(
                f"quantize={self.quantize} has its kernel on a GPU: on this CPU torch multiplied the weights "
                "of 8 bits, which is no faster"
            )
        if self.encoder != "eager":
            notes.append(f"encoder={self.encoder} needs a GPU: on this CPU the encoder ran as it is")
        return notes


_PLAIN = ("attention", "decoder", "loop", "batch", "topk", "encoder", "quantize")


def _refuse(options: Options) -> None:
    """UserError for what can't work together."""
    if options.decoder == "generate":
        _refuse_with_generate(options)
    elif options.attention == "flash":
        raise UserError(
            f"attention=flash can't be combined with decoder={options.decoder}: PyTorch's flash "
            "kernel takes no mask, and a cache of constant size needs one",
            f"attention=sdpa with decoder={options.decoder}, or decoder=generate",
        )
    if options.decoder == "fused":
        _refuse_with_fused(options)
    if options.attention == "kernel" and options.graphs == "compile":
        raise UserError(
            "graphs.how=compile can't be combined with attention=kernel: the kernel writes the caches, which "
            "torch.compile would copy around it",
            "graphs.how=manual, or attention=sdpa",
        )
    if options.loop == "device" and options.graphs == "none":
        raise UserError(
            "loop=device can't be combined with graphs.how=none: what the device repeats is a captured graph",
            "graphs.how=manual, or loop=host",
        )
    speculate = options.speculate
    if speculate.how == "scripted" and speculate.acceptance is None:
        raise UserError(
            "speculate.how=scripted needs to know how many proposals are accepted", "speculate.acceptance=0.8"
        )
    if speculate.how != "scripted" and speculate.acceptance is not None:
        raise UserError(
            f"speculate.acceptance={speculate.acceptance} can't be combined with "
            f"speculate.how={speculate.how}: "
            "what a draft gets accepted is measured",
            "speculate.how=scripted, or speculate.acceptance=null",
        )


def _refuse_with_fused(options: Options) -> None:
    if options.attention == "eager":
        raise UserError(
            "attention=eager can't be combined with decoder=fused: the decoder's kernels attend in their own "
            "way, so that it would only be the encoder's",
            "attention=sdpa, or decoder=static",
        )
    if options.attention == "kernel":
        raise UserError(
            "attention=kernel has no effect with decoder=fused, whose kernels attend anyway",
            "attention=sdpa, or decoder=static",
        )
    if options.graphs == "compile":
        raise UserError(
            "graphs.how=compile can't be combined with decoder=fused: its kernels leave nothing to compile",
            "graphs.how=manual, or decoder=static",
        )
    if options.quantize not in ("none", "int8"):
        raise UserError(
            f"quantize={options.quantize} can't be combined with decoder=fused: its kernels read "
            "weights of 16 bits or int8",
            "quantize=int8, or decoder=static",
        )


def _refuse_with_generate(options: Options) -> None:
    """transformers' own loop has none of this project's mechanisms."""
    if options.graphs != "none":
        raise UserError(
            f"graphs.how={options.graphs} can't be combined with decoder=generate: "
            "generate's tensors change shape and address at every step, and a graph replays fixed ones",
            "decoder=static, or graphs.how=none",
        )
    if options.attention == "kernel":
        raise UserError(
            "attention=kernel can't be combined with decoder=generate: the kernel attends to caches of "
            "constant size, which generate doesn't have",
            "decoder=static, or attention=flash",
        )
    chosen = {
        "loop": (options.loop, "host"),
        "topk": (options.topk, "argmax"),
        "encoder": (options.encoder, "eager"),
        "quantize": (options.quantize, "none"),
        "speculate.how": (options.speculate.how, "none"),
    }
    for name, (value, without) in chosen.items():
        if value != without:
            raise UserError(
                f"{name}={value} can't be combined with decoder=generate: it belongs to this project's own "
                "decoder",
                f"decoder=static, or {name}={without}",
            )
