"""What the model makes of sound in which nobody speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from experiments.attention import kernels
from experiments.audio import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from experiments.evaluate.subject import Subject
from experiments.evaluate.timestamps import generate
from experiments.train.augment import coloured_noise, melody

ENDLESS_TIMES = 5  # in a row; speech says a few tokens three times at most (999)


def signals(seed: int) -> dict[str, torch.Tensor]:
    """30 s of each sound, float32 [480000] in [-1, 1], by name."""
    g = torch.Generator().manual_seed(seed)
    shape = (1, WINDOW_SAMPLES)
    seconds = torch.arange(WINDOW_SAMPLES, dtype=torch.float64) / SAMPLE_RATE_HZ

    def noise(slope: float, dbfs: float) -> torch.Tensor:
        return coloured_noise(shape, torch.tensor([[slope]]), g, "cpu")[0] * 10 ** (dbfs / 20)

    def sine(hz: float, dbfs: float) -> torch.Tensor:
        return (torch.sin(2 * torch.pi * hz * seconds) * 10 ** (dbfs / 20)).float()

    # A transformer: 50 Hz and its overtones, each 6 dB below the one before, swelling every five seconds.
    hum = sum(sine(50 * (n + 1), -20 - 6 * n) for n in range(6)) * (1 + 0.3 * sine(0.2, 0)) + noise(0.5, -60)
    made = {
        "digital silence": torch.zeros(WINDOW_SAMPLES),
        "faint white noise (-60 dBFS)": noise(0, -60),
        "loud white noise (-12 dBFS)": noise(0, -12),
        "pink noise (-26 dBFS)": noise(0.5, -26),
        "music": melody(shape, g, "cpu")[0] * 10 ** (-20 / 20),
        "440 Hz tone": sine(440, -20),
        "mains hum": hum,
    }
    return {name: samples.clamp(-1, 1) for name, samples in made.items()}


def longest_run(tokens: Sequence[int]) -> tuple[int, int]:
    """(length, times) of the group of tokens that is said most often in a row; (0, 0) without tokens."""
    best = (len(tokens), 1) if tokens else (0, 0)
    for length in range(1, len(tokens) // 2 + 1):
        same = 0
        for position in range(length, len(tokens)):
            same = same + 1 if tokens[position] == tokens[position - length] else 0
            if same // length + 1 > best[1]:
                best = (length, same // length + 1)
    return best


def measure(subject: Subject, seed: int = 0) -> dict[str, Any]:
    """`signals`: for each its name, `no_speech` (probability of that token at the start token), and what was
    said without and with timestamps, see `_said`."""
    rows = []
    for name, samples in signals(seed).items():
        features = subject.features(samples[None].numpy())
        timed = [token for _, tokens in generate(subject, features) for token in tokens]
        rows.append(
            {
                "signal": name,
                "no_speech": no_speech(subject, features),
                "without_timestamps": _said(subject, subject.greedy(features)),
                "with_timestamps": _said(subject, timed),
            }
        )
    return {"seed": seed, "signals": rows}


@torch.inference_mode()
def no_speech(subject: Subject, features: torch.Tensor) -> float:
    """Whisper's own measure: the no-speech token's probability right after the start token."""
    loaded = subject.loaded
    start = torch.tensor([loaded.prompt[:1]], device=features.device)
    with kernels("sdpa", subject.device):
        logits = loaded.model(features, decoder_input_ids=start).logits[0, -1].float()
    return float(logits.softmax(-1)[loaded.prompt[-1] - 1])  # it stands before the no-timestamps token


def _said(subject: Subject, tokens: list[int]) -> dict[str, Any]:
    """`text`, `tokens` (text tokens), what is repeated most (`run_length` tokens, `run_times` in a row), and
    whether that, or using up the decoder's positions, makes it `endless`."""
    length, times = longest_run(tokens)
    return {
        "text": subject.loaded.text(tokens),
        "tokens": len(tokens),
        "run_length": length,
        "run_times": times,
        "endless": times >= ENDLESS_TIMES or len(tokens) >= subject.loaded.max_new_tokens,
    }
