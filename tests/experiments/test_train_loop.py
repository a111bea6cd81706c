"""The training loop minimises, notes what it did, and a run in pieces is the run in one piece."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, WhisperForConditionalGeneration

from experiments import draft as drafts
from experiments.train import loop
from experiments.train.distill import Pupil
from experiments.train.export import export
from experiments.train.loop import Feed, Heard, Loop, Student
from experiments.train.main_model import Trainee
from experiments.train.model import new_model
from experiments.train.pieces import _tokenize
from experiments.train.recipe import RECIPES, Stage
from experiments.train.windows import Windows
from tests.experiments.conftest import ROOT
from tests.experiments.test_train_windows import made_up_pool

SMOKE = RECIPES["smoke"]
SHIPPED = ROOT / "experiments/checkpoint"
NEVER = float("inf")


# --- on a problem with a known answer


def stage(name: str, steps: int, **changes: Any) -> Stage:
    return replace(Stage(name, 4, batch=8, steps=steps, tokens=1, ctc=(0, 0)), **changes)


class Points:
    """A feed of points on a plane, each step its own."""

    def batches(self, plan: list[tuple[int, Stage]]) -> Iterator[tuple[int, Stage, Heard]]:
        for step, planned in plan:
            yield step, planned, Heard(torch.randn((8, 3), generator=torch.Generator().manual_seed(step)), {})


class Plane(torch.nn.Module):
    """y = x w, to be found; `unused` has no part in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, 1))
        self.unused = torch.nn.Parameter(torch.ones(2))
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
        self.begun: list[int] = []
        self.shares: list[float] = []

    def begin(self, heard: Heard) -> None:
        self.begun.append(len(self.shares))

    def loss(self, heard: Heard, stage: Stage, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.shares.append(share)
        wanted = heard.mel @ torch.tensor([[1.0], [-2.0], [0.5]])
        loss = (heard.mel @ self.weight - wanted).square().mean()
        return loss, {"loss": loss, "one": torch.ones(()), **({"early": loss} if stage.name == "a" else {})}


def plane_loop(student: Student, folder: Path, *stages: Stage, rate: float = 0.05) -> Loop:
    feed: Any = Points()
    return Loop(stages, feed, student, folder, rate, warmup_steps=5, weight_decay=0.0)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The rows but for their times."""
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "s"} for row in rows]


def quiet(_: str) -> None:
    """Says nothing."""


def test_a_loss_goes_down_to_where_it_can_get(tmp_path: Path) -> None:
    plane = Plane()
    said: list[str] = []
    assert plane_loop(plane, tmp_path, stage("a", 150), stage("b", 150)).run(NEVER, said.append)
    rows = curve(tmp_path)
    assert [row["step"] for row in rows] == [100, 200, 300]
    assert rows[0]["loss"] > 0.1 > 100 * rows[-1]["loss"]
    torch.testing.assert_close(plane.weight.detach(), torch.tensor([[1.0], [-2.0], [0.5]]), rtol=0, atol=0.02)
    assert torch.equal(plane.unused, torch.ones(2)) and torch.equal(plane.frozen, torch.ones(2))
    assert {key: json.loads(said[-1])[key] for key in rows[-1]} == rows[-1]


def test_rows_hold_means_of_their_own_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that end between two rows leave no trace in the later one."""
    monkeypatch.setattr(loop, "LOG_EVERY", 4)
    plane_loop(Plane(), tmp_path, stage("a", 6), stage("b", 5)).run(NEVER, quiet)
    rows = curve(tmp_path)
    assert [(row["step"], row["stage"], row["one"]) for row in rows] == [
        (4, "a", 1),
        (8, "b", 1),
        (11, "b", 1),
    ]
    assert ["early" in row for row in rows] == [True, False, False]


def test_stages_begin_once_and_know_how_far_they_are(tmp_path: Path) -> None:
    plane = Plane()
    plane_loop(plane, tmp_path, stage("a", 4), stage("b", 2)).run(NEVER, quiet)
    assert plane.begun == [0, 4]
    assert plane.shares == [0, 0.25, 0.5, 0.75, 0, 0.5]


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_hundredth(tmp_path: Path) -> None:
    rates: list[float] = []

    class Noting(Plane):
        def loss(self, heard: Heard, stage: Stage, share: float) -> Any:
            rates.append(training._optimizer.param_groups[0]["lr"])
            return super().loss(heard, stage, share)

    training = plane_loop(Noting(), tmp_path, stage("a", 300), stage("b", 700), rate=0.2)
    training.run(NEVER, quiet)
    assert rates[:6] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.2])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.002, rel=0.01)
    assert rates[502] == pytest.approx(0.101, rel=0.01), "half way down between the two"


def test_a_lost_piece_and_a_half_written_state_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 10)
    stages = (stage("a", 25), stage("b", 20))
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    reference, student = Plane(), Plane()
    plane_loop(reference, whole, *stages).run(NEVER, quiet)

    pieces.mkdir()
    (pieces / "state.tmp").write_bytes(b"half of a sta")
    (pieces / "curve.jsonl").write_text('{"step": 10, "stage": "of a run before"}\n')
    assert not plane_loop(student, pieces, *stages).run(time.monotonic() - 1, quiet)
    assert [row["step"] for row in curve(pieces)] == [10]
    (pieces / "state.tmp").write_bytes(b"half of the next")
    with (pieces / "curve.jsonl").open("a") as file:  # written, but the state after it was lost
        file.write(json.dumps({"step": 20, "stage": "a", "s": 1.0, "loss": 77.0}) + "\n")
    resumed = Plane()
    assert plane_loop(resumed, pieces, *stages).run(NEVER, quiet)
    assert curve(pieces) == curve(whole)
    assert torch.equal(resumed.weight, reference.weight)
    assert not (pieces / "state.tmp").exists()

    again = Plane()  # a run that is done stays as it is
    assert plane_loop(again, pieces, *stages).run(time.monotonic() - 1, quiet)
    assert torch.equal(again.weight, reference.weight) and not again.shares
    assert curve(pieces) == curve(whole)


def test_time_spent_counts_all_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 2)

    class Slow(Plane):
        def loss(self, heard: Heard, stage: Stage, share: float) -> Any:
            time.sleep(0.06)
            return super().loss(heard, stage, share)

    while not plane_loop(Slow(), tmp_path, stage("a", 6)).run(time.monotonic() - 1, quiet):
        pass
    spent = [json.loads(line)["s"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert len(spent) == 3 and spent == sorted(spent) and spent[-1] >= 0.3


# --- on the real thing in small


Corpus = tuple[torch.Tensor, Windows]


class InlineFeed(Feed):
    """Draws the same batches without processes, whose start takes seconds."""

    def batches(self, plan: list[tuple[int, Stage]]) -> Iterator[tuple[int, Stage, Heard]]:
        for step, planned in plan:
            arrays = self._windows.batch(random.Random(f"{self._seed} {step}"), planned)
            yield step, planned, self._hear(arrays, step, planned)


def small_corpus() -> Corpus:
    """Two minutes of noise with sentences to it."""
    pool = made_up_pool(40, 1.0, 4.0, seed=0)
    tokens = _tokenize(pool, AutoTokenizer.from_pretrained(SHIPPED))
    return torch.from_numpy(pool.samples), Windows(pool, tokens)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return small_corpus()


def one_batch(corpus: Corpus, planned: Stage) -> Heard:
    ((_, _, heard),) = InlineFeed(*corpus, 1, torch.float32).batches([(0, planned)])
    return heard


def trainee(dtype: torch.dtype = torch.float32) -> Trainee:
    torch.manual_seed(0)
    return Trainee(new_model(SMOKE)).to(dtype).train()


def smoke_loop(corpus: Corpus, student: Student, folder: Path, *stages: Stage) -> Loop:
    dtype = next(p.dtype for _, p in student.named_parameters())
    feed = InlineFeed(*corpus, 0, dtype)
    return Loop(
        stages, feed, student, folder, SMOKE.peak_learning_rate, SMOKE.warmup_steps, SMOKE.weight_decay
    )


@pytest.mark.slow
def test_batches_depend_on_seed_and_step_alone(corpus: Corpus) -> None:
    plan = [(step, SMOKE.stages[step // 2]) for step in range(4)]
    inline = list(InlineFeed(*corpus, 7, torch.float32).batches(plan))
    drawn = list(Feed(*corpus, 7, torch.float32).batches(plan[1:]))
    assert [(step, planned) for step, planned, _ in drawn] == plan[1:]
    for (_, _, one), (_, _, other) in zip(inline[1:], drawn, strict=True):
        assert torch.equal(one.mel, other.mel)
        assert one.batch.keys() == other.batch.keys()
        assert all(torch.equal(one.batch[name], other.batch[name]) for name in one.batch)
    assert not torch.equal(inline[2][2].mel, inline[3][2].mel)


def test_the_same_windows_sound_different_at_each_step(corpus: Corpus) -> None:
    feed = InlineFeed(*corpus, 0, torch.float32)
    planned = SMOKE.stages[0]
    arrays = corpus[1].batch(random.Random(0), planned)
    first, second, again = (feed._hear(arrays, step, planned).mel for step in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("learner", ["model", "draft"])
def test_a_run_in_pieces_is_the_run_in_one_piece(
    learner: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    stages = SMOKE.stages if learner == "model" else (SMOKE.draft_stage,)

    def student() -> Student:
        if learner == "model":
            return trainee()
        model = trainee().model
        return Pupil(drafts.new_draft(model, SMOKE.draft_ffn_dim).train(), model)

    one = student()
    assert smoke_loop(corpus, one, tmp_path / "whole", *stages).run(NEVER, quiet)
    stops = 0
    while True:
        other = student()
        if smoke_loop(corpus, other, tmp_path / "pieces", *stages).run(time.monotonic() - 1, quiet):
            break
        stops += 1
    assert stops == (2 if learner == "model" else 1)
    assert curve(tmp_path / "pieces") == curve(tmp_path / "whole")
    states = [torch.load(tmp_path / name / "state.pt") for name in ("whole", "pieces")]
    parameters = [dict(s.named_parameters()) for s in (one, other)]
    for name, master in states[0]["masters"].items():
        assert torch.equal(master, states[1]["masters"][name]), name
        assert torch.equal(parameters[0][name], parameters[1][name]), name
    moments = [state["optimizer"]["state"] for state in states]
    assert all(
        torch.equal(moments[0][key][part], moments[1][key][part])
        for key in moments[0]
        for part in moments[0][key]
    )


def test_what_is_exported_are_the_fp32_masters(corpus: Corpus, tmp_path: Path) -> None:
    student = trainee(torch.bfloat16)
    short = replace(SMOKE.stages[0], steps=3)
    assert smoke_loop(corpus, student, tmp_path / "work", short).run(NEVER, quiet)
    masters = torch.load(tmp_path / "work/state.pt")["masters"]
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    assert masters.keys() == trained.keys()
    for name, parameter in trained.items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, masters[name]), name
    fine = [name for name, p in trained.items() if not torch.equal(p, p.bfloat16().float())]
    assert len(fine) > len(trained) / 2, "they are finer than what the student computed with"

    export(student.model, AutoTokenizer.from_pretrained(SHIPPED), tmp_path / "out")
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32)
    exported = dict(loaded.named_parameters())
    for name, master in masters.items():
        if not name.startswith("ctc_head."):
            assert torch.equal(exported[name.removeprefix("model.")], master.half().float()), name
    assert (
        loaded.generation_config.no_timestamps_token_id
        == student.model.generation_config.no_timestamps_token_id
    )
