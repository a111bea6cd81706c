"""The network is transformers' own; its losses are what their papers say, and can be minimised."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from experiments import draft as drafts
from experiments.train.distill import Pupil
from experiments.train.loop import Heard, Loop
from experiments.train.model import BLANK, Decode, Encode, new_model
from experiments.train.recipe import RECIPES, Stage
from experiments.train.windows import IGNORED
from tests.experiments.conftest import ROOT
from tests.experiments.test_train_loop import (
    NEVER,
    SMOKE,
    Corpus,
    InlineFeed,
    one_batch,
    quiet,
    small_corpus,
    smoke_loop,
    trainee,
)

SHIPPED = ROOT / "experiments/checkpoint"
MIB = 2**20


@pytest.fixture(scope="module")
def shipped() -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(
        SHIPPED, attn_implementation="sdpa", dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return small_corpus()


@pytest.fixture(scope="module")
def heard(corpus: Corpus) -> Heard:
    """A training batch with windows that CTC leaves out."""
    heard = one_batch(corpus, replace(SMOKE.stages[0], batch=24))
    assert 0 < heard.batch["ctc_counts"].sum() < 24
    return heard


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn((2, 80, 3000), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_encode_is_transformers_encoder(shipped: WhisperForConditionalGeneration, mel: torch.Tensor) -> None:
    expected = shipped.get_encoder()(mel).last_hidden_state
    torch.testing.assert_close(Encode(shipped)(mel), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_encode_takes_shorter_windows(shipped: WhisperForConditionalGeneration, mel: torch.Tensor) -> None:
    """transformers' own forward, told that 4 s is all there can be, gives the same."""
    short = copy.deepcopy(shipped).get_encoder()
    short.config.max_source_positions = 200
    short.embed_positions = torch.nn.Embedding.from_pretrained(short.embed_positions.weight[:200])
    expected = short(mel[:, :, :400]).last_hidden_state
    assert expected.shape == (2, 200, shipped.config.d_model)
    torch.testing.assert_close(Encode(shipped)(mel[:, :, :400]), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decode_is_transformers_decoder(shipped: WhisperForConditionalGeneration, mel: torch.Tensor) -> None:
    ids = torch.randint(0, 2790, (2, 77), generator=torch.Generator().manual_seed(1))
    encoded = Encode(shipped)(mel)
    expected = shipped(encoder_outputs=(encoded,), decoder_input_ids=ids).logits
    found = Decode(shipped)(encoded, ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    changed = ids.clone()
    changed[:, 40] = 7
    later = Decode(shipped)(encoded, changed)
    torch.testing.assert_close(later[:, :40], found[:, :40], rtol=1e-4, atol=1e-3)  # it can't look ahead
    assert not torch.allclose(later[:, 40:], found[:, 40:])


@torch.no_grad()
def test_decode_of_the_draft_is_transformers_causal_model(
    shipped: WhisperForConditionalGeneration, mel: torch.Tensor
) -> None:
    draft = drafts.load(SHIPPED, shipped)
    ids = torch.randint(0, 2790, (2, 77), generator=torch.Generator().manual_seed(1))
    encoded = Encode(shipped)(mel)
    expected = draft(input_ids=ids, encoder_outputs=(encoded,)).logits
    torch.testing.assert_close(Decode(draft)(encoded, ids), expected, rtol=1e-4, atol=1e-3)


def test_the_bundled_recipe_fits_its_files(tmp_path: Path) -> None:
    recipe = RECIPES["bundled"]
    model = new_model(recipe)
    assert 2 * sum(p.numel() for p in model.parameters()) <= 12 * MIB
    draft = drafts.new_draft(model, recipe.draft_ffn_dim)
    drafts.save(draft, model, tmp_path)
    assert (tmp_path / drafts.FILE_NAME).stat().st_size <= MIB


def test_ctc_weighs_less_and_less(heard: Heard) -> None:
    student, planned = trainee(), replace(SMOKE.stages[0], ctc=(0.4, 0.0))
    with torch.no_grad():
        full, parts = student.loss(heard, planned, 0.0)
        half, _ = student.loss(heard, planned, 0.5)
        none, last = student.loss(heard, planned, 1.0)
    assert none == parts["loss"] and "ctc" not in last
    assert (full - none).item() == pytest.approx(0.4 * parts["ctc"].item(), rel=1e-4)
    assert (half - none).item() == pytest.approx(0.2 * parts["ctc"].item(), rel=1e-4)


def test_the_ctc_loss_is_nats_per_text_token_of_whole_windows(heard: Heard) -> None:
    student, batch, nats = trainee(), heard.batch, []
    with torch.no_grad():
        _, parts = student.loss(heard, SMOKE.stages[0], 0.0)
        log_probs = student.ctc_head(Encode(student.model)(heard.mel)).log_softmax(-1)
    for n in batch["ctc_counts"].nonzero().flatten().tolist():
        length = int(batch["ctc_length"][n])
        targets = batch["ctc"][n : n + 1, :length]
        loss = functional.ctc_loss(
            log_probs[n][:, None], targets, (200,), (length,), blank=BLANK, reduction="sum"
        )
        nats.append(loss.item() / length)
    assert parts["ctc"].item() == pytest.approx(sum(nats) / len(nats), rel=1e-4)


def test_the_token_loss_is_nats_per_token_that_is_asked_for(heard: Heard) -> None:
    student, targets = trainee(), heard.batch["targets"]
    with torch.no_grad():
        _, parts = student.loss(heard, SMOKE.stages[0], 0.0)
        logits = Decode(student.model)(Encode(student.model)(heard.mel), heard.batch["ids"])
    scored = targets != IGNORED
    nats = -logits[scored].log_softmax(-1).gather(1, targets[scored][:, None])
    assert parts["loss"].item() == pytest.approx(nats.mean().item(), rel=1e-4)
    assert parts["accuracy"] == (logits.argmax(-1) == targets)[scored].float().mean()


def test_the_drafts_loss_is_its_divergence_from_the_model(heard: Heard) -> None:
    model = trainee().model
    draft = drafts.new_draft(model, SMOKE.draft_ffn_dim)
    with torch.no_grad():
        loss, parts = Pupil(draft, model).loss(heard, SMOKE.draft_stage, 0.0)
        encoded, ids = Encode(model)(heard.mel), heard.batch["ids"]
        p, q = (Decode(m)(encoded, ids)[heard.batch["targets"] != IGNORED].double() for m in (model, draft))
    divergence = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    assert loss.item() == pytest.approx(divergence.item(), rel=1e-3)
    assert parts["agreement"].item() == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())


def test_the_model_learns_a_batch_by_heart(corpus: Corpus, tmp_path: Path) -> None:
    short = replace(SMOKE.stages[0], steps=60, batch=2, untouched=1.0)
    heard = one_batch(corpus, short)

    class Always(InlineFeed):
        def batches(self, plan: list[tuple[int, Stage]]) -> Iterator[tuple[int, Stage, Heard]]:
            yield from ((step, planned, heard) for step, planned in plan)

    student, feed = trainee(), Always(*corpus, 0, torch.float32)
    before, _ = student.loss(heard, short, 0.0)
    assert Loop((short,), feed, student, tmp_path, 5e-3, 5, 0.0).run(NEVER, quiet)
    after, parts = student.loss(heard, short, 0.0)
    assert after < before / 5
    assert parts["ctc"] < 6 and parts["accuracy"] > 0.9


def test_the_draft_comes_to_agree_with_its_model(corpus: Corpus, tmp_path: Path) -> None:
    model = trainee().model
    before = {name: p.clone() for name, p in model.named_parameters()}
    pupil = Pupil(drafts.new_draft(model, SMOKE.draft_ffn_dim).train(), model)
    short = replace(SMOKE.stages[0], steps=40, batch=2)
    heard = one_batch(corpus, short)
    untrained, _ = pupil.loss(heard, short, 0.0)
    assert smoke_loop(corpus, pupil, tmp_path, short).run(NEVER, quiet)
    trained, _ = pupil.loss(heard, short, 0.0)
    assert trained < untrained / 2
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "the model is frozen"
