"""Speculation gives the tokens of greedy decoding, whatever is proposed, and counts what was accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from experiments.draft import draft_of
from experiments.options import Options, Speculation
from experiments.speculate import agreement_for
from experiments.static_loop import StaticLoop
from experiments.transcription import Transcription, build
from harness.errors import UserError
from harness.phases import HostTimer, PhaseClock, SilentAnnotator
from tests.experiments.conftest import ROOT

pytestmark = pytest.mark.xdist_group("speculate")  # what they share is made once

STATIC = Options("sdpa", "static")


def silent() -> PhaseClock:
    return PhaseClock(HostTimer(), SilentAnnotator())


@pytest.fixture(scope="module")
def window(baseline: Transcription) -> torch.Tensor:
    return baseline._log_mel(baseline._windows[0][2], silent())


@pytest.fixture(scope="module")
def greedy(baseline: Transcription, window: torch.Tensor) -> list[int]:
    return StaticLoop(baseline._loaded, STATIC, "cpu").decode(window, silent())[0]


@pytest.fixture(scope="module")
def random_draft(baseline: Transcription, configure: Callable[..., DictConfig]) -> Any:
    return draft_of(baseline._loaded.model, configure("baseline").model)


def scripted(
    baseline: Transcription, draft: Any, drafts: int, acceptance: float = 0.5, tokens: int | None = None
) -> StaticLoop:
    options = replace(STATIC, speculate=Speculation("scripted", drafts, acceptance))
    loaded = replace(baseline._loaded, new_tokens=tokens or baseline._loaded.new_tokens)
    return StaticLoop(loaded, options, "cpu", draft)


@pytest.mark.parametrize("drafts", [1, 2, 3, 4, 5])
def test_rejected_at_each_place_or_nowhere(
    drafts: int, baseline: Transcription, window: torch.Tensor, greedy: list[int], random_draft: Any
) -> None:
    """Every round has the first n of its proposals right and the next one wrong, n from none to all."""
    loop: Any = scripted(baseline, random_draft, drafts)
    known = loop.learn(window)
    begin = len(baseline._loaded.prompt)
    loop._script._pattern = pattern = torch.zeros_like(known, dtype=torch.bool)
    for right in range(drafts + 1):
        # The first proposal is for the token behind the prefill's; a round with n right ones moves on n + 1.
        for index in range(known.shape[1]):
            agrees = right == drafts or (index - begin - 1) % (right + 1) != right
            pattern[0, index] = agrees
        clock = silent()
        assert loop.decode(window, clock, known=known) == [greedy]
        tokens = len(greedy) - 1
        assert clock.counts["rounds"] == -(-tokens // (right + 1))
        assert clock.counts["drafted"] == drafts * clock.counts["rounds"]
        assert clock.counts["accepted"] == tokens - clock.counts["rounds"]


def test_the_draft_proposes_what_it_would_without_a_cache(
    baseline: Transcription, window: torch.Tensor, random_draft: Any
) -> None:
    """After rounds in which some, all or none of its proposals stood: no hole and nothing stale in its
    cache."""
    drafts = 3
    loop: Any = scripted(baseline, random_draft, drafts, acceptance=0.7)
    known = loop.learn(window)
    seen: list[tuple[list[int], int]] = []
    instead = loop._script.instead_of

    def recorded(proposed: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        seen.append((loop._state.history[0, : int(places)].tolist(), int(proposed)))
        return instead(proposed, places)

    loop._script.instead_of = recorded
    clock = silent()
    loop.decode(window, clock, known=known)
    assert len(seen) >= clock.counts["drafted"] > clock.counts["accepted"] > 0
    banned = list(baseline._loaded.suppress)
    with torch.inference_mode():
        heard = baseline._loaded.model.get_encoder()(window).last_hidden_state
        for prefix, proposed in seen:
            logits = random_draft(torch.tensor([prefix]), encoder_outputs=(heard,)).logits[0, -1]
            assert proposed == logits.index_fill(0, torch.tensor(banned), -torch.inf).argmax()


@pytest.mark.parametrize("drafts", [1, 4])
@pytest.mark.parametrize("asked", [0.0, 0.6, 0.8, 0.9, 1.0])
def test_a_script_is_accepted_as_often_as_asked(
    drafts: int, asked: float, baseline: Transcription, window: torch.Tensor, random_draft: Any
) -> None:
    loop = scripted(baseline, random_draft, drafts, asked, tokens=200)
    known = loop.learn(window)
    clock = silent()
    ((*tokens,),) = loop.decode(window, clock, known=known)
    assert tokens == known[0, len(baseline._loaded.prompt) :][:200].tolist()
    assert clock.counts["accepted"] / clock.counts["drafted"] == pytest.approx(asked, abs=0.07)


def test_agreement_solves_for_the_share_that_is_accepted() -> None:
    assert agreement_for(0.5, 1) == pytest.approx(0.5)
    assert agreement_for(1.0, 4) == pytest.approx(1.0) and agreement_for(0.0, 4) == pytest.approx(0.0)
    p = agreement_for(0.8, 3)
    assert (p + p**2 + p**3) / 3 == pytest.approx(0.8)


def test_only_a_scripted_loop_learns(baseline: Transcription, window: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="not scripted"):
        StaticLoop(baseline._loaded, STATIC, "cpu").learn(window)


@pytest.mark.parametrize("overrides", [("batch=2",), ("speculate.tokens=5",)], ids=" ".join)
def test_the_shipped_draft_saves_rounds_and_changes_no_token(
    overrides: tuple[str, ...], configure: Callable[..., DictConfig]
) -> None:
    checkpoint = ROOT / "experiments" / "checkpoint"

    def run(scope: str, *overrides: str) -> tuple[list[list[int]], dict[str, int]]:
        work: Any = build(configure(scope, "model=bundled", f"model.path={checkpoint}", *overrides), "cpu")
        clock = silent()
        work.run(clock)
        return [window["tokens"] for window in work.transcripts()], clock.counts

    expected, counts = run("baseline")
    found, counted = run("speculative", *overrides)
    assert found == expected
    assert counted["tokens"] == counts["tokens"] == sum(map(len, expected))
    assert counted["tokens"] / counted["rounds"] > 2, "most of what it proposes is right"
    assert counted["accepted"] == counted["tokens"] - counted["rounds"]


def test_a_checkpoint_without_a_draft_is_refused(
    baseline: Transcription, tmp_path: Any, configure: Callable[..., DictConfig]
) -> None:
    with pytest.raises(UserError, match="is no draft for this model"):
        draft_of(baseline._loaded.model, {"source": "pretrained", "name": "x", "path": str(tmp_path)})
