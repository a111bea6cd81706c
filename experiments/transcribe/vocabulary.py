"""A checkpoint's special tokens and text, as the pipeline needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.models import LoadedModel
from experiments.transcribe.long_form import Language
from harness.errors import ExitCode, UserError


@dataclass(frozen=True)
class SpecialTokens:
    """Ids in Whisper's layout: ..., previous, no_speech, no_timestamps, then one for each 0.02 s."""

    previous: int
    no_speech: int
    no_timestamps: int

    @classmethod
    def of(cls, loaded: LoadedModel) -> SpecialTokens:
        rules: Any = loaded.model.generation_config  # Whisper's has more than transformers declares
        no_timestamps = int(rules.no_timestamps_token_id)
        return cls(no_timestamps - 2, no_timestamps - 1, no_timestamps)

    @property
    def timestamp_begin(self) -> int:
        return self.no_timestamps + 1


def language_of(loaded: LoadedModel, task: str) -> Language:
    """How to ask `loaded` for text with timestamps; task: `transcribe` or `translate`. Raises UserError."""
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise UserError(
            f"model {loaded.name} has random weights and no vocabulary, so it gives token ids and no words",
            "--model bundled, the folder of a Whisper checkpoint, or its name on the hub",
            ExitCode.INPUT,
        )
    special = SpecialTokens.of(loaded)
    prompt = loaded.prompt[:-1]  # the last one asks for no timestamps
    if task == "translate":
        if loaded.language is None:
            raise UserError(
                f"model {loaded.name} is English only and translates nothing", "--task transcribe"
            )
        rules: Any = loaded.model.generation_config
        prompt = (*prompt[:-1], rules.task_to_id[task])
    return Language(
        task=prompt,
        previous=special.previous,
        end=loaded.end,
        timestamp_begin=special.timestamp_begin,
        text=lambda tokens: str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False)),
    )
