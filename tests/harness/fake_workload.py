"""A workload without torch: it sleeps, and does on request what workloads should not do."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.errors import ExitCode, UserError
from harness.phases import DECODE, DECODE_STEP, ENCODE, FEATURES, PREFILL, PhaseClock

STEPS = 3


def check(cfg: DictConfig) -> None:
    if cfg.fake.mischief == "bad_input":
        raise UserError("the fake audio is silent", "other audio", ExitCode.INPUT)


def build(cfg: DictConfig, device: str) -> FakeWorkload:
    mischief = cfg.fake.mischief
    if mischief == "missing_model":
        raise UserError("no such fake model", "model=another", ExitCode.INPUT)
    if mischief == "bug":
        raise RuntimeError("a bug in the workload")
    if cfg.fake.heard:
        return FakeListener(mischief, list(cfg.fake.tokens), OmegaConf.to_container(cfg.fake.heard))
    return FakeWorkload(mischief, list(cfg.fake.tokens))


class FakeWorkload:
    def __init__(self, mischief: str, tokens: list[int]) -> None:
        self.mischief = mischief
        self.tokens = tokens

    def run(self, clock: PhaseClock) -> None:
        traced = "trace" in sys.argv
        if self.mischief == "die" or (self.mischief == "die_traced" and traced):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mischief == "fill_disk":
            with open(Path(sys.argv[-1]) / "trace.huge", "wb") as file:
                while True:
                    file.write(b"x" * 4096)
        if self.mischief == "hang" or (self.mischief == "hang_traced" and traced):
            print("hanging", flush=True)
            time.sleep(60)
        for name in (FEATURES, ENCODE, PREFILL):
            with clock.phase(name):
                time.sleep(0.001)
        with clock.phase(DECODE):
            for position in range(STEPS):
                with clock.phase(DECODE_STEP, payload=position):
                    time.sleep(0.0005)

    def transcripts(self) -> list[dict[str, Any]]:
        window = {"source": "fake.wav", "window": 0, "text": None, "reference": None}
        return [window | {"tokens": self.tokens, "margins": [0.5] * len(self.tokens)}]

    def describe(self) -> dict[str, Any]:
        return {"model": "fake", "audio_s": 30.0, "notes": []}

    def close(self) -> None:
        pass


class FakeListener(FakeWorkload):
    """Gives the texts that it is told, and counts their errors as the real workload does."""

    def __init__(self, mischief: str, tokens: list[int], heard: Any) -> None:
        super().__init__(mischief, tokens)
        self.heard = heard

    def transcripts(self) -> list[dict[str, Any]]:
        return [
            {"tokens": self.tokens, "margins": [0.5] * len(self.tokens)} | window for window in self.heard
        ]

    def word_errors(self, transcripts: list[dict[str, Any]]) -> dict[str, Any]:
        from experiments import word_errors

        return word_errors.of_transcripts(transcripts, "en")
