"""The model card says what the records say, and nothing else."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from experiments.evaluate.__main__ import CHECKPOINT
from experiments.train import card, curve
from experiments.train.recipe import RECIPES
from experiments.train.record import Origin, origin_here, write_record
from harness.errors import ExitCode
from tests.experiments.conftest import ROOT

EVALUATION = json.loads((CHECKPOINT / "evaluation.json").read_text())
TRAINING = json.loads((CHECKPOINT / "training.json").read_text())


@pytest.fixture
def evaluation() -> dict[str, Any]:
    return copy.deepcopy(EVALUATION)


def test_the_shipped_card_is_up_to_date(tmp_path: Path) -> None:
    for name in ("evaluation.json", "training.json"):
        shutil.copy(CHECKPOINT / name, tmp_path)
    assert card.main([str(tmp_path)]) == ExitCode.OK
    assert (tmp_path / "README.md").read_text() == (CHECKPOINT / "README.md").read_text()
    assert (tmp_path / "curve.png").read_bytes()[:8] == (CHECKPOINT / "curve.png").read_bytes()[:8]


def test_the_readme_says_of_the_checkpoint_what_the_records_say() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{EVALUATION['model']['parameters'] / 1e6:.1f} million parameters" in readme
    assert f"{EVALUATION['words']['all']['wer']:.1%} WER on clips it never heard" in readme
    assert f"{EVALUATION['audio']['clips']} clips that the bundled model never heard" in readme
    assert f"in {sum(TRAINING['training_s'].values()) / 60:.0f} minutes on an H200" in readme


def test_the_front_matter_is_what_the_hub_reads() -> None:
    _, front, _ = (CHECKPOINT / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(front)
    assert (found["license"], found["language"], found["library_name"]) == (
        "apache-2.0",
        "en",
        "transformers",
    )
    assert found["pipeline_tag"] == "automatic-speech-recognition"


def test_every_field_of_the_template_is_filled_and_none_is_left_over() -> None:
    fields = set(Template(card.TEMPLATE.read_text()).get_identifiers())
    assert fields == card._measured(EVALUATION).keys() | card._made(TRAINING).keys()


def test_numbers_come_from_the_records(evaluation: dict[str, Any]) -> None:
    evaluation["words"]["all"]["wer"] = 0.4321
    evaluation["draft"]["with_timestamps"]["tokens_per_verification"]["3"] = 9.87
    evaluation["robustness"]["signals"][0]["with_timestamps"] |= {"text": "Boo | hoo.", "endless": True}
    training = copy.deepcopy(TRAINING)
    training["corpus"]["words"] = 7654
    written = card.render(evaluation, training)
    assert "**43.21% WER**" in written and "| 9.87 |" in written and "7,654 words" in written
    row = next(line for line in written.splitlines() if "Boo" in line)
    assert r"Boo \| hoo." in row and row.endswith("| yes |")


def test_what_was_not_measured_is_said(evaluation: dict[str, Any]) -> None:
    evaluation["draft"] = {"skipped": "the model comes without a draft"}
    assert "Not measured: the model comes without a draft." in card.render(evaluation, TRAINING)


def test_missing_and_foreign_records_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert card.main([str(tmp_path)]) == ExitCode.INPUT
    said = capsys.readouterr().err
    assert "evaluation.json can't be read" in said and "python -m experiments.evaluate --json" in said
    shutil.copy(CHECKPOINT / "evaluation.json", tmp_path)
    (tmp_path / "training.json").write_text("{")
    assert card.main([str(tmp_path)]) == ExitCode.INPUT
    (tmp_path / "training.json").write_text("{}")
    assert card.main([str(tmp_path)]) == ExitCode.INPUT
    assert "lacks 'recipe'" in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists()


def test_a_run_of_training_is_recorded_with_its_curves(tmp_path: Path) -> None:
    rows = {
        "model": {"step": 6, "stage": "30 s", "s": 3.5, "loss": 6.1, "accuracy": 0.1, "ctc": 20.0},
        "draft": {"step": 3, "stage": "draft", "s": 1.5, "loss": 7.0, "agreement": 0.0},
    }
    for name, row in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "curve.jsonl").write_text(json.dumps(row) + "\n")
    recipe = RECIPES["smoke"]
    write_record(
        tmp_path, tmp_path, recipe, Origin("f" * 40, False, "2026-01-02", "a machine", {"torch": "9"})
    )
    found = json.loads((tmp_path / "training.json").read_text())
    assert found["training_s"] == {"model": 3.5, "draft": 1.5} and found["model"] == [rows["model"]]
    assert found["recipe"]["stages"][0]["steps"] == recipe.stages[0].steps and found["commit"] == "f" * 40
    assert found.keys() == TRAINING.keys() and found["corpus"] == TRAINING["corpus"]
    curve.draw(found).savefig(tmp_path / "short.png")


def test_a_run_here_names_this_machine_and_its_packages() -> None:
    here = origin_here("cpu")
    assert here.machine and here.versions.keys() >= {"python", "torch", "transformers"}


def test_the_figure_shows_both_curves_and_names_the_stages() -> None:
    figure = curve.draw(TRAINING)
    losses, draft_loss, accuracy, agreement = figure.axes
    assert [text.get_text() for text in losses.texts] == [s["name"] for s in TRAINING["recipe"]["stages"]]
    assert losses.get_yscale() == draft_loss.get_yscale() == "log"
    for axes, rows, key in ((accuracy, "model", "accuracy"), (agreement, "draft", "agreement")):
        assert list(axes.lines[0].get_ydata()) == [row[key] for row in TRAINING[rows]]
