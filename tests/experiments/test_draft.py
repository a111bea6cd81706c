"""The draft shares what it can with its model, never changes what is said, and ships in little space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from experiments import audio, draft
from experiments.features import LogMel
from experiments.train.model import new_model
from experiments.train.recipe import RECIPES
from harness.errors import ExitCode, UserError
from tests.experiments.conftest import CLIPS, ROOT

SHIPPED = ROOT / "experiments/checkpoint"
MIB = 2**20


@pytest.fixture(scope="module")
def model() -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(
        SHIPPED, attn_implementation="sdpa", dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module", params=sorted(path.name for path in CLIPS.glob("*.flac")))
def features(request: pytest.FixtureRequest) -> Iterator[torch.Tensor]:
    (clip,) = audio.load(CLIPS / request.param)
    yield LogMel()(torch.from_numpy(clip.windows()))


def test_the_draft_uses_its_models_own_modules(model: WhisperForConditionalGeneration) -> None:
    found = draft.load(SHIPPED, model)
    own, theirs = found.get_decoder(), model.get_decoder()
    assert len(own.layers) == 1 and not found.training
    assert own.embed_tokens is theirs.embed_tokens
    assert own.embed_positions is theirs.embed_positions
    assert found.proj_out is model.proj_out
    for name in ("k_proj", "v_proj"):
        assert getattr(own.layers[0].encoder_attn, name) is getattr(theirs.layers[-1].encoder_attn, name)


def test_its_file_holds_its_own_weights_only(model: WhisperForConditionalGeneration, tmp_path: Path) -> None:
    found = draft.load(SHIPPED, model)
    draft.save(found, model, tmp_path)
    again = load_file(tmp_path / draft.FILE_NAME)
    shipped = load_file(SHIPPED / draft.FILE_NAME)
    assert again.keys() == shipped.keys() == draft.own_parameters(found, model).keys()
    assert all(torch.equal(again[name], shipped[name]) for name in shipped)
    assert not [name for name in shipped if "embed" in name or "proj_out" in name or "encoder_attn.k" in name]
    assert "model.decoder.layers.0.self_attn.q_proj.weight" in shipped
    shared = {p.data_ptr() for p in model.parameters()}
    rest = {name for name, p in found.named_parameters() if p.data_ptr() not in shared}
    assert rest == shipped.keys(), "nothing of its own is left out"


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    model = new_model(RECIPES["smoke"])
    saved = draft.new_draft(model, ffn_dim=24)
    draft.save(saved, model, tmp_path)
    loaded = draft.own_parameters(draft.load(tmp_path, model), model)
    for name, parameter in draft.own_parameters(saved, model).items():
        assert torch.equal(loaded[name], parameter.half().float()), name


def test_a_draft_is_refused_by_another_model() -> None:
    with pytest.raises(UserError, match=r"draft\.safetensors is no draft for this model") as refused:
        draft.load(SHIPPED, new_model(RECIPES["smoke"]))
    assert refused.value.exit_code == ExitCode.INPUT and "model=bundled" in refused.value.hint


@pytest.mark.parametrize("content", [None, b"", b"not tensors at all"], ids=["missing", "empty", "damaged"])
def test_a_file_that_is_no_draft_is_refused(
    content: bytes | None, model: WhisperForConditionalGeneration, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / draft.FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match="is no draft for this model") as refused:
        draft.load(tmp_path, model)
    assert refused.value.exit_code == ExitCode.INPUT


def test_a_cut_file_is_refused(model: WhisperForConditionalGeneration, tmp_path: Path) -> None:
    whole = (SHIPPED / draft.FILE_NAME).read_bytes()
    (tmp_path / draft.FILE_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is no draft for this model"):
        draft.load(tmp_path, model)


@pytest.mark.parametrize("change", ["one more", "one less", "another shape"])
def test_tensors_that_are_not_the_drafts_are_refused(
    change: str, model: WhisperForConditionalGeneration, tmp_path: Path
) -> None:
    tensors = load_file(SHIPPED / draft.FILE_NAME)
    name = "model.decoder.layer_norm.weight"
    if change == "one more":
        tensors["model.decoder.layers.1.fc1.bias"] = torch.zeros(240)
    elif change == "one less":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, tmp_path / draft.FILE_NAME)
    with pytest.raises(UserError, match="is no draft for this model"):
        draft.load(tmp_path, model)


@pytest.mark.parametrize("timestamps", [False, True])
def test_the_draft_changes_nothing_but_the_number_of_the_models_steps(
    timestamps: bool, model: WhisperForConditionalGeneration, features: torch.Tensor
) -> None:
    steps: list[int] = []

    def count(*_: Any) -> None:
        steps.append(1)

    with model.get_decoder().register_forward_hook(count):
        plain = model.generate(features, return_timestamps=timestamps)
        alone = len(steps)
        helped = model.generate(
            features, return_timestamps=timestamps, assistant_model=draft.load(SHIPPED, model)
        )
    assert plain.tolist() == helped.tolist()
    assert plain.shape[1] > 20
    assert len(steps) - alone < 0.8 * alone, "most of what it proposes is right"


def test_the_shipped_files_are_small_and_hold_tensors_only() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    sizes = {path.name: path.stat().st_size for path in files}
    assert max(sizes.values()) <= 14 * MIB
    assert sum(sizes.values()) <= 16 * MIB
    assert sizes[draft.FILE_NAME] <= MIB
    # Weights of another kind are pickles, which can run code when they are loaded.
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".png"}
    weights = [path.name for path in files if path.suffix == ".safetensors"]
    assert sorted(weights) == [draft.FILE_NAME, "model.safetensors"]
    for name in weights:
        with safe_open(SHIPPED / name, "pt") as tensors:
            kinds = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 - not a dict
        assert kinds == {"F16"}
        assert all(tensor.isfinite().all() for tensor in load_file(SHIPPED / name).values())
