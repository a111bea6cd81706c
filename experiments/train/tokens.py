"""The tokenizer: byte-level BPE on our own text, with Whisper's special and timestamp tokens behind it.

The layout is Whisper's, which transformers relies on: text, end, start, language, tasks, the two prompt
marks, no-speech, no-timestamps, then one token for each 0.02 s from 0 to 30 s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from transformers import WhisperTokenizer

TEXT_TOKENS = 1280
TIMESTAMP_STEP_S = 0.02
LAST_TIMESTAMP = 1500  # 30 s
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
VOCAB_SIZE = TEXT_TOKENS + len(SPECIAL) + LAST_TIMESTAMP + 1


@dataclass(frozen=True)
class Ids:
    """Ids of the special tokens; a timestamp of t seconds is `timestamps + t / TIMESTAMP_STEP_S`."""

    end: int = TEXT_TOKENS
    start: int = TEXT_TOKENS + 1
    english: int = TEXT_TOKENS + 2
    translate: int = TEXT_TOKENS + 3
    transcribe: int = TEXT_TOKENS + 4
    start_of_lm: int = TEXT_TOKENS + 5
    previous: int = TEXT_TOKENS + 6
    no_speech: int = TEXT_TOKENS + 7
    no_timestamps: int = TEXT_TOKENS + 8
    timestamps: int = TEXT_TOKENS + 9

    def timestamp(self, seconds: float) -> int:
        """The token of a time in the window, rounded to 0.02 s and held to 0..30 s."""
        return self.timestamps + min(max(round(seconds / TIMESTAMP_STEP_S), 0), LAST_TIMESTAMP)


def train_tokenizer(sentences: Iterable[str]) -> WhisperTokenizer:
    """Learn TEXT_TOKENS - 256 merges from `sentences`; every byte has a token, so any text can be written."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # A segment's text begins with a space, as it does in Whisper's transcripts.
    bpe.train_from_iterator((f" {sentence}" for sentence in sentences), trainer)
    if bpe.get_vocab_size() != TEXT_TOKENS:
        raise ValueError(
            f"the text yields {bpe.get_vocab_size()} tokens, not {TEXT_TOKENS}: too little of it"
        )
    learned = json.loads(bpe.to_str())["model"]
    return _with_special_tokens(learned["vocab"], [tuple(pair) for pair in learned["merges"]])


def _with_special_tokens(vocab: dict[str, int], merges: list[tuple[str, str]]) -> WhisperTokenizer:
    # Takes seconds, which the processes that lay out windows need not spend: they use Ids only.
    from transformers import WhisperTokenizer

    tokenizer = WhisperTokenizer(
        vocab=vocab
        | {name: TEXT_TOKENS + n for n, name in enumerate(SPECIAL)},  # the prefix is looked up at once
        merges=merges,
        language="en",
        task="transcribe",
        pad_token=SPECIAL[0],
    )
    special = [AddedToken(name, normalized=False, special=True) for name in SPECIAL]
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    # Timestamps are no special tokens: the pipelines of transformers read them from the text.
    tokenizer.add_tokens(
        [
            AddedToken(f"<|{n * TIMESTAMP_STEP_S:.2f}|>", normalized=False, special=False)
            for n in range(LAST_TIMESTAMP + 1)
        ]
    )
    return tokenizer
