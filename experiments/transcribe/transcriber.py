"""The pipeline with a model: what Python code uses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.transcribe.results import Transcript
from harness import usage
from harness.errors import ExitCode, UserError

if TYPE_CHECKING:
    from experiments.models import LoadedModel
    from experiments.options import Options
    from experiments.transcribe.pipeline import OnProgress, Outcome

SCOPE = "optimized"
DEVICES = ("auto", "cpu", "cuda")
TASKS = ("transcribe", "translate")
MODEL_HINT = "--model bundled, the folder of a Whisper checkpoint, or its name on the hub"


class Transcriber:
    """A model on a device, ready to transcribe. Raises UserError for what can't be had.

    model: `bundled`, another choice of conf/model, the folder of a checkpoint, or its name on the hub; scope:
    one of conf/scope with decoder=static or fused and no draft; batch: windows that are decoded at once;
    sequential: window after window of each file as Whisper does it, instead of files cut at their silences
    (the default if batch is 1); language: a code like `en`; task: `transcribe` or `translate` (into English);
    word_timestamps: give each word its times; previous_tokens: of the text before, at most, that the next
    window is given, with sequential only; verify_silence: see `LongFormOptions`; compile_encoder: where the
    scope says encoder=compile, do so: otherwise it is only captured, which takes no 20 s before the first
    window; device: `auto`, `cuda` or `cpu`.
    """

    def __init__(
        self,
        model: str | Path = "bundled",
        *,
        scope: str = SCOPE,
        batch: int = 1,
        sequential: bool | None = None,
        language: str = "en",
        task: str = "transcribe",
        word_timestamps: bool = False,
        previous_tokens: int = 0,
        verify_silence: bool = True,
        compile_encoder: bool = False,
        device: str = "auto",
    ) -> None:
        sequential = batch == 1 if sequential is None else sequential
        _check(batch, task, language, previous_tokens, sequential, device)
        cfg = configuration(os.fspath(model), scope)

        from experiments import models
        from experiments.transcribe.long_form import LongFormOptions, decode_stretch
        from experiments.transcribe.pipeline import Pipeline
        from experiments.transcribe.static import StaticWindowDecoder
        from experiments.transcribe.vocabulary import language_of

        options = mechanisms(cfg, compile_encoder)
        self.device = models.device_for(device)
        loaded = load_model(cfg["model"], options.attention, language, self.device)
        _check_room(previous_tokens, loaded)
        long_form = LongFormOptions(previous_tokens, verify_silence)
        decode = partial(decode_stretch, language=language_of(loaded, task), options=long_form)
        decoder = StaticWindowDecoder(loaded, options, batch, previous_tokens, word_timestamps)
        self._pipeline = Pipeline(decoder, decode, language, sequential)

    def __call__(self, path: str | Path) -> Transcript:
        """The transcript of one file. Raises UserError if it can't be used."""
        (outcome,) = self.many([Path(path)])
        if outcome.transcript is None:
            raise outcome.error or UserError(f"{path} was not transcribed")
        return outcome.transcript

    def many(
        self, paths: Iterable[str | Path] | str | Path, on_progress: OnProgress = lambda *_: None
    ) -> Iterator[Outcome]:
        """What becomes of each file, in their order: one that can't be used does not stop the others.

        on_progress: told of each file how many more of its seconds are done.
        """
        paths = [paths] if isinstance(paths, str | Path) else paths
        return self._pipeline.transcribe(map(Path, paths), on_progress)


def mechanisms(cfg: Mapping[str, Any], compile_encoder: bool) -> Options:
    """Those of a scope; what is compiled for it is captured instead if not asked for."""
    from experiments.options import Options

    options = Options.from_config(cfg)
    if options.encoder == "compile" and not compile_encoder:
        return replace(options, encoder="manual")
    return options


def configuration(model: str, scope: str) -> dict[str, Any]:
    """The choices of a scope with a model, as the harness composes them. Raises UserError."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    if not model:
        raise UserError("--model '' names no model", MODEL_HINT)
    if scope not in _choices("scope"):
        raise UserError(f"there is no scope {scope!r}", _scope_hint())
    usage.register_resolvers()
    is_choice = model in _choices("model")
    try:
        with initialize_config_dir(str(usage.CONF), version_base="1.3"):
            cfg = compose("config", overrides=[f"+scope={scope}", *([f"model={model}"] if is_choice else [])])
    except Exception as problem:
        raise usage.explain(problem) from problem
    if not is_choice:
        cfg.model = {"source": "pretrained", "name": model, "new_tokens": None}
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    if plain["decoder"] == "generate":
        raise UserError(
            f"--scope {scope} decodes with transformers' generate, which has no batch of constant shape",
            _scope_hint(),
        )
    return dict(plain)


def load_model(cfg: dict[str, Any], attention: str, language: str, device: str) -> LoadedModel:
    """A choice of conf/model on a device. Raises UserError in the terms of the commands."""
    from transformers import logging

    from experiments import models

    logging.disable_progress_bar()
    try:
        return models.load(cfg, attention, language, device, None)
    except UserError as error:
        if error.exit_code == ExitCode.INPUT:
            hint = MODEL_HINT
        else:
            hint = error.hint.replace("audio.language=", "--language with")
        what = str(error).replace("audio.language=", "--language ")
        raise UserError(what, hint, error.exit_code) from error


def _check_room(previous_tokens: int, loaded: LoadedModel) -> None:
    most = loaded.model.config.max_target_positions // 2 - 1
    if not 0 <= previous_tokens <= most:
        raise UserError(f"--previous-tokens {previous_tokens} don't fit {loaded.name}", f"0 to {most}")


def _choices(group: str) -> dict[str, Path]:
    """The files of a group of conf/ by the names of its choices."""
    return {file.stem: file for file in sorted((usage.CONF / group).glob("*.yaml"))}


def _scope_hint() -> str:
    """Names those that the pipeline can decode with."""
    from omegaconf import OmegaConf

    scopes = {name: OmegaConf.load(file) for name, file in _choices("scope").items()}
    fit = [name for name, cfg in scopes.items() if cfg.decoder != "generate" and "speculate" not in cfg]
    return f"--scope with one of: {', '.join(fit)}"


def _check(batch: int, task: str, language: str, previous_tokens: int, sequential: bool, device: str) -> None:
    """What can be said before a model is loaded; UserError."""
    if device not in DEVICES:
        raise UserError(f"there is no device {device!r}", f"--device with one of: {', '.join(DEVICES)}")
    if batch < 1:
        raise UserError(f"--batch {batch} decodes nothing", "--batch 1 or more")
    if task not in TASKS:
        raise UserError(f"there is no task {task!r}", f"--task with one of: {', '.join(TASKS)}")
    if task == "translate" and language == "en":
        raise UserError(
            "--task translate is into English, and --language en says that English is spoken",
            "--language with the language that is spoken, or --task transcribe",
        )
    if previous_tokens and not sequential:
        raise UserError(
            f"--previous-tokens {previous_tokens} has no effect where files are cut at silences: the pieces "
            "are decoded side by side, without the text before",
            "--long-form sequential (the default with --batch 1), or no --previous-tokens",
        )
