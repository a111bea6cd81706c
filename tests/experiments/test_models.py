"""Checkpoints load from folders as transformers writes them; what can't be had is named, with the choices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from experiments import models
from experiments.bundled import CHECKPOINT
from experiments.transcription import Transcription, build
from harness.errors import ExitCode, UserError
from tests.experiments.conftest import ROOT


def test_a_folder_in_transformers_format_gives_the_same_tokens_and_words(
    baseline: Transcription, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    baseline._loaded.model.save_pretrained(tmp_path)
    words = WordLevel({f"w{token}": token for token in range(1024)}, unk_token="w0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words)).save_pretrained(tmp_path)
    cfg = configure("cuda_graphs", "model=whisper", f"model.name={tmp_path}", "max_new_tokens=24")
    loaded = build(cfg, "cpu").transcripts()
    expected = [window["tokens"] for window in baseline.transcripts()]
    assert [window["tokens"] for window in loaded] == expected
    assert loaded[0]["text"] == " ".join(f"w{token}" for token in expected[0])


@pytest.mark.parametrize("name", ["/no/such/folder", "openai/whisper-small", "no-such-owner/no-such-model"])
def test_a_checkpoint_that_cannot_be_had_is_named_with_the_choices(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Offline, with an empty cache: the same everywhere, whether or not this machine reaches a hub.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cfg = OmegaConf.create({"name": name, "source": "pretrained", "new_tokens": None})
    with pytest.raises(UserError) as refused:
        models.load(cfg, "eager", "en", "cpu", None)
    assert refused.value.exit_code == ExitCode.INPUT
    assert name in str(refused.value)
    assert "whisper_small_random" in refused.value.hint and "tiny_random" in refused.value.hint


@pytest.mark.parametrize(
    "file, left",
    [
        ("model.safetensors", 1000),
        ("config.json", None),
        ("generation_config.json", None),
        ("tokenizer.json", None),
    ],
)
def test_a_damaged_checkpoint_is_refused(file: str, left: int | None, tmp_path: Path) -> None:
    """left: bytes that are left of the file, None where it is gone."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(ROOT / "experiments" / "checkpoint", folder)
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    if left:
        (folder / file).write_bytes(whole[:left])
    cfg = OmegaConf.create({"name": str(folder), "source": "pretrained", "new_tokens": None})
    with pytest.raises(UserError, match="could not be loaded from that folder") as refused:
        models.load(cfg, "eager", "en", "cpu", None)
    assert refused.value.exit_code == ExitCode.INPUT


def test_a_model_of_english_only_is_not_told_another_language(tmp_path: Path) -> None:
    for file in CHECKPOINT.iterdir():
        shutil.copy(file, tmp_path)
    rules = tmp_path / "generation_config.json"
    rules.write_text(json.dumps(json.loads(rules.read_text()) | {"is_multilingual": False}))
    cfg = OmegaConf.create({"name": str(tmp_path), "source": "pretrained", "new_tokens": None})
    assert models.load(cfg, "sdpa", "en", "cpu", None).language is None
    with pytest.raises(UserError, match=r"audio\.language=de, but this model is English only"):
        models.load(cfg, "sdpa", "de", "cpu", None)
    assert models.load(cfg, "sdpa", "en", "cpu", 446).new_tokens == 446, "whose prompt takes two positions"


def test_more_tokens_than_the_decoder_has_positions_for_are_refused(
    configure: Callable[..., DictConfig],
) -> None:
    cfg = configure("baseline").model
    loaded = models.load(cfg, "sdpa", "en", "cpu", 444)
    assert len(loaded.prompt) + 444 == loaded.model.config.max_target_positions
    told = r"max_new_tokens=445 does not fit .* 448 positions, 4 of them"
    with pytest.raises(UserError, match=told) as refused:
        models.load(cfg, "sdpa", "en", "cpu", 445)
    assert refused.value.hint == "max_new_tokens= 2 to 444"


def test_an_unspoken_language_is_refused_with_the_spoken_ones(configure: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match="language=xx") as refused:
        models.load(configure("baseline").model, "eager", "xx", "cpu", None)
    assert "en" in refused.value.hint


def test_random_weights_are_the_same_every_time(configure: Callable[..., DictConfig]) -> None:
    first, second = (models.load(configure("baseline").model, "eager", "en", "cpu", None) for _ in range(2))
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert one.equal(other)
