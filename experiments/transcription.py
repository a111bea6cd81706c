"""The workload: sound files to text, in windows of 30 s, one after the other or several at once.

The module is importable without torch: `check` runs in the parent process, `build` in the measured child.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import audio, floor
from experiments.options import Options
from harness import phases
from harness.errors import ExitCode, UserError
from harness.phases import HostTimer, NvtxAnnotator, PhaseClock, SilentAnnotator

if TYPE_CHECKING:
    import torch

    Decode = Callable[[int, torch.Tensor, PhaseClock], list[list[int]]]

# Of a checkpoint, those that decide its tokens and words.
CHECKPOINT_FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json")


def check(cfg: Mapping[str, Any]) -> None:
    """Refuse options that don't go together and audio that can't be used; raises UserError."""
    options = Options.from_config(cfg)
    if cfg["capture"] == "ncu" and options.loop == "device" and cfg["device"] == "cuda":
        raise UserError(
            "capture=ncu can't be combined with loop=device: it measures the kernels of one decode step, and "
            "all steps of a window are one launch there",
            "loop=host, which runs the same kernels, or capture=nsys",
        )
    audio.check(cfg["audio"]["path"], cfg["audio"]["max_seconds"])


def inputs(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What tokens and word errors depend on: the model as configured, the sound by file name and content, and
    the words that are said in it. A checkpoint that has a path counts by its files, wherever it lies."""
    files = audio.sound_files(cfg["audio"]["path"])
    return {
        "model": _model_inputs(cfg["model"]),
        "language": cfg["audio"]["language"],
        "max_new_tokens": cfg["max_new_tokens"],
        "sound": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "references": {file.name: audio.reference(file) for file in files},
    }


def _model_inputs(model: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(model)
    if folder := found.pop("path", None):
        if not (Path(folder) / CHECKPOINT_FILES[0]).is_file():
            raise UserError(
                f"{folder} holds no {CHECKPOINT_FILES[0]}",
                "model.path=FOLDER of a checkpoint",
                ExitCode.INPUT,
            )
        files = [file for name in CHECKPOINT_FILES if (file := Path(folder) / name).is_file()]
        found["files"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return found


def stand_ins(options: Options, device: str) -> list[str]:
    """What of `options`, which are not of decoder=generate, this machine can't do, as sentences, and what
    happens instead."""
    if device == "cpu":
        return options.without_gpu()
    from kernels import accept

    if obstacle := accept.obstacle():
        instead = "torch's operations, some forty launches a round, accept tokens in place of one kernel"
        return [f"{obstacle}: {instead} (same tokens)"]
    return []


def build(cfg: Mapping[str, Any], device: str) -> Transcription:
    """The workload on `device` (`cuda` or `cpu`), model loaded and graphs captured."""
    return Transcription(cfg, device)


class Transcription:
    """Transcribes all windows of the configured audio; one call of `run` is one iteration."""

    def __init__(self, cfg: Mapping[str, Any], device: str) -> None:
        import torch

        from experiments import models
        from experiments.features import LogMel

        self._torch = torch
        self._options = Options.from_config(cfg)
        self._device = device
        self._language = cfg["audio"]["language"]
        self._notes = audio.check(cfg["audio"]["path"], cfg["audio"]["max_seconds"])
        self._clips = audio.load(cfg["audio"]["path"])
        self._loaded = models.load(
            cfg["model"], self._options.attention, self._language, device, cfg["max_new_tokens"]
        )
        self._features = LogMel(self._loaded.model.config.num_mel_bins).to(device)
        self._windows = [
            (clip, index, torch.from_numpy(window)[None])
            for clip in self._clips
            for index, window in enumerate(clip.windows())
        ]
        pcm = [pcm for _, _, pcm in self._windows]
        size = self._options.batch
        self._batches = [torch.cat(pcm[first : first + size]) for first in range(0, len(pcm), size)]
        self._decode = self._make_decoder(cfg["model"])
        self._tokens: list[list[int]] = []

    def _make_decoder(self, model: Mapping[str, Any]) -> Decode:
        """What decodes batch number n from its features."""
        loaded, options = self._loaded, self._options
        if options.decoder == "generate":
            from experiments.generate import GenerateDecoder

            generate = GenerateDecoder(loaded, options.attention, self._device)
            return lambda number, features, clock: generate.decode(features, clock)
        from experiments.draft import draft_of
        from experiments.static_loop import StaticLoop

        self._notes += stand_ins(options, self._device)
        if (empty := options.batch - len(self._windows)) > 0:
            self._notes.append(
                f"batch={options.batch}, but there are {len(self._windows)} windows: "
                f"{empty} rows of each step are computed for nothing"
            )
        draft = draft_of(loaded.model, model) if options.speculate.drafts else None
        loop = StaticLoop(loaded, options, self._device, draft)
        if options.speculate.how != "scripted":
            return lambda number, features, clock: loop.decode(features, clock)
        self._notes.append(
            f"proposals are scripted: a seeded pattern is to have {options.speculate.acceptance:.0%} of them "
            "accepted (`acceptance` says how many were), whatever the draft says, which computes as many"
        )
        clock = PhaseClock(HostTimer(), SilentAnnotator())
        known = [loop.learn(self._log_mel(pcm, clock)) for pcm in self._batches]
        return lambda number, features, clock: loop.decode(features, clock, known=known[number])

    def run(self, clock: PhaseClock) -> None:
        """One iteration over all windows; returns when the device has done all that was queued."""
        self._tokens = self._transcribe(clock)
        clock.count(phases.TOKENS, sum(self._steps()))
        if self._device == "cuda":
            self._torch.cuda.synchronize()  # rounds that ran ahead of the last token may still be running

    def tokens(self) -> list[list[int]]:
        """Of each window, in the last iteration."""
        return self._tokens

    def _steps(self) -> list[int]:
        """Decode steps of each window in the last iteration, one token each."""
        most = self._loaded.max_new_tokens
        # A window that ended has an end token besides; the first token is the prefill's.
        return [min(len(tokens) + 1, most) - 1 for tokens in self._tokens]

    def _transcribe(self, clock: PhaseClock) -> list[list[int]]:
        tokens: list[list[int]] = []
        with self._torch.inference_mode():
            for number, pcm in enumerate(self._batches):
                tokens += self._decode(number, self._log_mel(pcm, clock), clock)
        return tokens

    def _log_mel(self, pcm: torch.Tensor, clock: PhaseClock) -> torch.Tensor:
        with clock.phase(phases.FEATURES):
            return self._features(pcm.to(self._device)).to(self._loaded.model.dtype)

    def transcripts(self) -> list[dict[str, Any]]:
        """Tokens, text and the margin of each choice, window by window; not timed."""
        from experiments.margins import margins

        clock = PhaseClock(HostTimer(), NvtxAnnotator())
        return [
            {
                "source": clip.source,
                "window": index,
                "tokens": tokens,
                "margins": margins(self._loaded, self._log_mel(pcm, clock), tokens),
                "text": self._loaded.text(tokens),
                "reference": clip.reference,
            }
            for (clip, index, pcm), tokens in zip(self._windows, self._transcribe(clock), strict=True)
        ]

    def word_errors(self, transcripts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Word and character error rates of what `transcripts` returned."""
        from experiments import word_errors

        return word_errors.of_transcripts(transcripts, self._language)

    def describe(self) -> dict[str, Any]:
        """What ran, for the record."""
        model = self._loaded.model
        return {
            "model": self._loaded.name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
            **asdict(self._options),
            "graphs": self._options.graphs if self._device == "cuda" else "none",
            "audio_s": round(audio.total_seconds(self._clips), 3),
            "windows": len(self._windows),
            "floor": self._floor(),
            "notes": self._notes,
        }

    def _floor(self) -> dict[str, float]:
        """Bytes and FLOPs that a greedy decode step of a batch can't do without, at the mean position of
        those that ran; empty before the first."""
        steps = self._steps()
        if not sum(steps):
            return {}
        # The n steps of a window find the prompt and 1 to n tokens in the cache.
        tokens = sum(n * (n + 1) / 2 for n in steps) / sum(steps)
        cached = len(self._loaded.prompt) + tokens
        model = self._loaded.model
        rows = len(self._windows) / len(self._batches)  # of those that hold a window
        weight_bytes = 1 if self._options.quantize != "none" else model.dtype.itemsize
        shapes = floor.Shapes.of(model.config)
        least = floor.decode_step(shapes, cached, model.dtype.itemsize, rows, weight_bytes)
        return {
            "decode_step_bytes": least.bytes,
            "decode_step_flops": least.flops,
            "rows": rows,
            "cached_tokens": cached,
            "element_bytes": model.dtype.itemsize,
        }

    def close(self) -> None:
        """Free the model and the graphs, so that a next workload of this process finds the memory."""
        del self._decode, self._loaded
