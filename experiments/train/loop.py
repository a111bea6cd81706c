"""The training loop: stages of the curriculum, a checkpoint to resume from, the curve as it goes."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import torch

from experiments.audio import SAMPLE_RATE_HZ
from experiments.features import LogMel
from experiments.train import windows
from experiments.train.augment import Disturbance, assemble, mask_spectrogram
from experiments.train.recipe import Stage
from experiments.train.windows import Batch, Windows
from harness.errors import ExitCode, UserError

SAVE_EVERY_S = 120
WORKERS = 2  # processes that lay out windows
AHEAD = 6  # batches
LOG_EVERY = 100
MAX_GRADIENT_NORM = 1.0


@dataclass
class Heard:
    """A batch on the device: mel [B, n_mels, frames] and the arrays of `Batch` as tensors.

    Only `ctc_length` stays on the host: torch reads it there, and a copy back would stop the queue.
    """

    mel: torch.Tensor
    batch: dict[str, torch.Tensor]


class Feed:
    """Batches as the model hears them. Each depends on (seed, step) only, so a resumed run sees the same."""

    def __init__(self, samples: torch.Tensor, windows: Windows, seed: int, dtype: torch.dtype) -> None:
        self._samples = samples
        self._windows = windows
        self._seed = seed
        self._dtype = dtype
        self._device = device = samples.device.type
        self._disturb = Disturbance(device)
        self._log_mel = LogMel().to(device)
        self._generator = torch.Generator(device)

    def batches(self, plan: list[tuple[int, Stage]]) -> Iterator[tuple[int, Stage, Heard]]:
        """The batch of each planned (step, stage); the next ones are laid out meanwhile.

        In processes: a thread would take turns with this one at Python's lock, and the GPU would wait.
        """
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(WORKERS, context, windows.adopt, (self._windows,)) as workers:
            jobs = ((f"{self._seed} {step}", stage) for step, stage in plan)
            waiting = deque(workers.submit(windows.draw, *job) for job in itertools.islice(jobs, AHEAD))
            try:
                for step, stage in plan:
                    arrays = waiting.popleft().result()
                    waiting.extend(workers.submit(windows.draw, *job) for job in itertools.islice(jobs, 1))
                    yield step, stage, self._hear(arrays, step, stage)
            except BrokenProcessPool as error:
                raise UserError(
                    "a process that lays out windows was killed",
                    "the same command goes on; free some memory first",
                    ExitCode.CHILD,
                ) from error
            finally:
                workers.shutdown(cancel_futures=True)

    @torch.no_grad()
    def _hear(self, arrays: Batch, step: int, stage: Stage) -> Heard:
        host = {f.name: torch.from_numpy(getattr(arrays, f.name)) for f in fields(arrays)}
        batch = {name: array.to(self._device, non_blocking=True) for name, array in host.items()}
        batch["ctc_length"] = host["ctc_length"]
        self._generator.manual_seed(self._seed * 1_000_003 + step)
        parts = (batch[name] for name in ("start", "source", "length", "gain"))
        pcm = assemble(self._samples, *parts, round(stage.window_s * SAMPLE_RATE_HZ))
        pcm = self._disturb(pcm, batch["end"], stage.untouched, self._generator)
        mel = self._log_mel(pcm)
        mel = mask_spectrogram(mel, self._generator) if stage.masked else mel
        return Heard(mel.to(self._dtype), batch)


class Student(Protocol):
    """A module that learns."""

    def begin(self, heard: Heard) -> None:
        """Called with the first batch of each stage, whose shapes are those of the stage."""

    def loss(self, heard: Heard, stage: Stage, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The scalar to minimise and what to log; share: how much of the stage is done (0 to 1)."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """As of any torch.nn.Module; those that require a gradient are trained and saved."""


class Loop:
    """Trains `student` through `stages`, in pieces if time is short.

    The student may compute in bf16: the optimiser works on fp32 copies of its parameters, which it gets back
    at the end.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        feed: Feed,
        student: Student,
        folder: Path,
        peak_learning_rate: float,
        warmup_steps: int,
        weight_decay: float,
    ) -> None:
        self._stages, self._feed, self._student, self._folder = stages, feed, student, folder
        self._peak, self._warmup = peak_learning_rate, warmup_steps
        self._trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
        self._masters = {name: p.detach().float().clone() for name, p in self._trained.items()}
        for master in self._masters.values():
            master.grad = torch.zeros_like(master)
        groups = [
            {"params": [m for m in self._masters.values() if m.dim() > 1], "weight_decay": weight_decay},
            {"params": [m for m in self._masters.values() if m.dim() <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=peak_learning_rate, betas=(0.9, 0.98), fused=True)
        self._steps = sum(stage.steps for stage in stages)

    def run(self, until: float, say: Callable[[str], None]) -> bool:
        """Train until done (True) or until `time.monotonic` shows `until` (False, state saved)."""
        first, spent_s = self._resume()
        began = saved = time.monotonic()
        sums: dict[str, torch.Tensor] = {}
        summed, current = 0, None
        for step, stage, heard in self._feed.batches(self._plan()[first:]):
            if stage != current:
                self._student.begin(heard)
                current, sums, summed = stage, {}, 0
            summed += 1
            for name, value in self._step(step, stage, heard).items():
                sums[name] = sums[name] + value if name in sums else value
            done = step + 1
            if done % LOG_EVERY and done < self._steps:
                continue
            now = time.monotonic()
            means = {name: round(total.item() / summed, 4) for name, total in sums.items()}
            self._note(done, stage, now - began + spent_s, means, say)
            sums, summed = {}, 0
            if now > until and done < self._steps:
                self._save(done, now - began + spent_s)
                return False
            if now - saved > SAVE_EVERY_S:
                self._save(done, now - began + spent_s)
                saved = now
        self._save(self._steps, time.monotonic() - began + spent_s)
        for name, parameter in self._trained.items():
            parameter.data = self._masters[name]
        return True

    def _plan(self) -> list[tuple[int, Stage]]:
        stages = [stage for stage in self._stages for _ in range(stage.steps)]
        return list(enumerate(stages))

    def _step(self, step: int, stage: Stage, heard: Heard) -> dict[str, torch.Tensor]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        before = sum(s.steps for s in self._stages[: self._stages.index(stage)])
        loss, parts = self._student.loss(heard, stage, (step - before) / stage.steps)
        loss.backward()
        masters = list(self._masters.values())
        for master, parameter in zip(masters, self._trained.values(), strict=True):
            if parameter.grad is None:
                master.grad.zero_()
        graded = [name for name, p in self._trained.items() if p.grad is not None]
        torch._foreach_copy_(
            [self._masters[name].grad for name in graded], [self._trained[name].grad for name in graded]
        )
        torch.nn.utils.clip_grad_norm_(masters, MAX_GRADIENT_NORM)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(list(self._trained.values()), masters)
        for parameter in self._trained.values():
            parameter.grad = None
        return {name: value.detach() for name, value in parts.items()}

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a hundredth of the peak."""
        if step < self._warmup:
            return self._peak * (step + 1) / self._warmup
        done = (step - self._warmup) / max(1, self._steps - self._warmup)
        return self._peak * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def _note(
        self,
        done: int,
        stage: Stage,
        spent_s: float,
        means: dict[str, float],
        say: Callable[[str], None],
    ) -> None:
        """Append a row to the curve; means: over the stage's steps since the last row."""
        row = {"step": done, "stage": stage.name, "s": round(spent_s, 1), **means}
        with open(self._folder / "curve.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        if done % (10 * LOG_EVERY) == 0 or done == self._steps:
            say(json.dumps(row))

    def _save(self, step: int, spent_s: float) -> None:
        temporary = self._folder / "state.tmp"
        state = {
            "step": step,
            "spent_s": spent_s,
            "masters": self._masters,
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, temporary)
        temporary.replace(self._folder / "state.pt")

    def _resume(self) -> tuple[int, float]:
        """Load the saved state, if there is one: the first step to do and the seconds spent before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path, curve = self._folder / "state.pt", self._folder / "curve.jsonl"
        if not path.exists():
            curve.unlink(missing_ok=True)
            return 0, 0.0
        saved = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(saved["masters"][name])
                self._trained[name].copy_(master)
        self._optimizer.load_state_dict(saved["optimizer"])
        # Rows after the saved step belong to a piece that was lost.
        rows = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
        curve.write_text("".join(json.dumps(r) + "\n" for r in rows if r["step"] <= saved["step"]))
        return saved["step"], saved["spent_s"]
