"""The evaluation set: clips of 5 to 30 s in voices and sentences that training never hears.

python -m experiments.train.heldout FOLDER writes them anew: sound (Ogg Vorbis, so that ten minutes fit into
the repository), text, and segments.json with the true time of every sentence.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from experiments.audio import SAMPLE_RATE_HZ
from experiments.train.augment import Disturbance, coloured_noise
from experiments.train.corpus import Pool, make_pool

CLIPS = 40
SHORTEST_S, LONGEST_S = 5.0, 29.5
SEED = 20_261_122
HOURS = 0.9  # one speaker per clip: a voice with accent, rate, pitch and speed of its own
CONDITIONS = ("clean", "noise", "room")
NOISE_SNR_DB = 15.0
ROOM_SNR_DB = 20.0
COMPRESSION = 0.75  # of Vorbis: about 30 kbit/s


@dataclass(frozen=True)
class HeldOutClip:
    """samples: float32 [n] at 16 kHz; segments: (first second, last second, sentence)."""

    condition: str
    samples: np.ndarray
    segments: list[tuple[float, float, str]]


def make_clips(count: int = CLIPS, seed: int = SEED) -> list[HeldOutClip]:
    """The first `count` clips of `seed`, one held-out speaker each, the conditions in turn."""
    pool = make_pool(HOURS, seed, held_out=True)
    rng = random.Random(seed)
    return [
        _clip(pool, speaker, CONDITIONS[speaker % len(CONDITIONS)], rng, seed) for speaker in range(count)
    ]


def _clip(pool: Pool, speaker: int, condition: str, rng: random.Random, seed: int) -> HeldOutClip:
    wanted_s = rng.uniform(SHORTEST_S, LONGEST_S)
    at_s, parts, segments = 0.0, [], []
    for index in np.flatnonzero(pool.speakers == speaker):
        first, length = int(pool.starts[index]), int(pool.lengths[index])
        pause = np.zeros(round(rng.uniform(0.1, 0.7) * SAMPLE_RATE_HZ), np.float32)
        spoken_s = length / SAMPLE_RATE_HZ
        if at_s >= SHORTEST_S and at_s + len(pause) / SAMPLE_RATE_HZ + spoken_s > wanted_s:
            break
        at_s += len(pause) / SAMPLE_RATE_HZ
        segments.append((round(at_s, 3), round(at_s + spoken_s, 3), pool.texts[index]))
        parts += [pause, pool.samples[first : first + length].astype(np.float32) / 32768]
        at_s += spoken_s
    samples = np.concatenate([*parts, np.zeros(SAMPLE_RATE_HZ // 4, np.float32)])
    return HeldOutClip(condition, _disturbed(samples, condition, seed + speaker), segments)


def _disturbed(samples: np.ndarray, condition: str, seed: int) -> np.ndarray:
    if condition == "clean":
        return samples
    generator = torch.Generator().manual_seed(seed)
    pcm = torch.from_numpy(samples)[None]
    if condition == "room":
        pcm = Disturbance("cpu").room(pcm, 0.0, generator)
    noise = coloured_noise(tuple(pcm.shape), torch.tensor([[0.5]]), generator, "cpu")
    snr_db = NOISE_SNR_DB if condition == "noise" else ROOM_SNR_DB
    noise *= pcm.square().mean().sqrt() / 10 ** (snr_db / 20)
    mixed = (pcm + noise)[0]
    return (mixed / mixed.abs().max() * 0.7).numpy()


def write(folder: Path) -> None:
    """Write all clips into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number, clip in enumerate(make_clips()):
        name = f"{number:02d}_{clip.condition}"
        soundfile.write(
            folder / f"{name}.ogg",
            clip.samples,
            SAMPLE_RATE_HZ,
            format="OGG",
            subtype="VORBIS",
            compression_level=COMPRESSION,
        )
        (folder / f"{name}.txt").write_text(" ".join(text for _, _, text in clip.segments) + "\n")
        truth[f"{name}.ogg"] = {"condition": clip.condition, "segments": clip.segments}
    (folder / "segments.json").write_text(json.dumps(truth, indent=0) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.train.heldout", description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
