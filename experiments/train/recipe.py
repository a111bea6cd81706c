"""What is trained on what, for how long: the numbers that a repetition needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Some steps on windows of one length.

    window_s: seconds of sound per window (the encoder sees no more than that); tokens: decoder positions,
    what is longer is cut off; prompted: share of the windows that are given the text before; ctc: weight of
    the auxiliary CTC loss at the first and the last step, linear between; untouched: share of the windows
    without noise, and of those without a room; masked: SpecAugment on.
    """

    name: str
    window_s: float
    batch: int
    steps: int
    tokens: int
    ctc: tuple[float, float]
    prompted: float = 0.0
    untouched: float = 0.3
    masked: bool = True


@dataclass(frozen=True)
class Recipe:
    """One training run. hours: synthetic speech in the corpus; seed: of text, voices, windows and weights."""

    hours: float
    stages: tuple[Stage, ...]
    draft_hours: float
    draft_stage: Stage
    seed: int = 0
    peak_learning_rate: float = 1.5e-3
    draft_learning_rate: float = 2e-3
    warmup_steps: int = 500
    weight_decay: float = 0.05
    d_model: int = 256
    encoder_layers: int = 3
    decoder_layers: int = 4
    encoder_ffn_dim: int = 768
    decoder_ffn_dim: int = 352
    draft_ffn_dim: int = 240
    heads: int = 4

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


RECIPES = {
    # Nine minutes of an H200 for the model, two for its draft.
    "bundled": Recipe(
        hours=110,
        stages=(
            # Clear sound first: in noise the decoder takes twice as long to find out where to listen.
            Stage("4 s", 4, batch=256, steps=1500, tokens=56, ctc=(0.4, 0.4), untouched=0.8, masked=False),
            Stage("10 s", 10, batch=128, steps=1500, tokens=112, ctc=(0.4, 0.3), untouched=0.5),
            Stage("30 s, CTC", 30, batch=64, steps=2500, tokens=352, ctc=(0.3, 0.0), prompted=0.4),
            Stage("30 s", 30, batch=64, steps=4500, tokens=352, ctc=(0.0, 0.0), prompted=0.4),
        ),
        draft_hours=10,
        draft_stage=Stage("draft", 30, batch=64, steps=2500, tokens=352, ctc=(0.0, 0.0), prompted=0.4),
    ),
    # Everything once, in seconds on a CPU: shows that the parts fit, learns nothing.
    "smoke": Recipe(
        hours=0.05,
        stages=(
            Stage("4 s", 4, batch=4, steps=3, tokens=56, ctc=(0.4, 0.4), untouched=0.8, masked=False),
            Stage("30 s", 30, batch=2, steps=3, tokens=352, ctc=(0.4, 0.0), prompted=0.4),
        ),
        draft_hours=0.05,
        draft_stage=Stage("draft", 30, batch=2, steps=3, tokens=352, ctc=(0.0, 0.0), prompted=0.4),
        warmup_steps=2,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        draft_ffn_dim=32,
        heads=2,
    ),
}
