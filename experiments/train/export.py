"""A trained model as a folder for transformers' `from_pretrained`: fp16 safetensors and a tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer


def export(model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, folder: Path) -> None:
    """Write model, tokenizer, feature extractor and generation settings into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    # The weights come last: where they are, an interrupted export was complete.
    half = copy.deepcopy(model).to("cpu", torch.float16)
    half.save_pretrained(folder)
