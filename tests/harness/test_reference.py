"""Which run of a scope another is compared with: one that has the mechanisms of the scope's file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from harness import reference, usage
from harness.errors import UserError
from harness.record import Record
from harness.store import Store
from tests.harness.cli import ROOT, Command, records

PUBLISHED = sorted((ROOT / "results").glob("*/*/*/run.json"))
Make = Callable[..., Record]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def make(store: Store) -> Make:
    """Finished runs of real scopes, each newer than those before; `record` is changed by what is given."""
    about = json.loads(PUBLISHED[0].read_text())

    def make(*overrides: str, **changes: Any) -> Record:
        cfg = configured(*overrides)
        run = f"{cfg.name}/2026120{len(store.runs())}T000000Z"
        machine = about["environment"] | {"machine": changes.pop("machine", "NVIDIA H200")}
        named = {"id": run, "scope": cfg.name, "overrides": list(overrides), "environment": machine}
        record = Record(**(about | {"analysed": None} | named | {"started_utc": run.split("/")[1]} | changes))
        (store.outputs / run).mkdir(parents=True)
        OmegaConf.save(cfg, store.outputs / run / "config.yaml")
        record.save(store.outputs)
        store.put(record)
        return record

    return make


def configured(*overrides: str) -> DictConfig:
    usage.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def found(store: Store, record: Record) -> str:
    return reference.find(store, record, OmegaConf.load(store.outputs / record.id / "config.yaml"))


GRAPHS = "+scope=cuda_graphs"
ITS_OWN = [GRAPHS, "compare_with=cuda_graphs"]
FIT = {
    "as it is": ([], ["+scope=int8"]),
    "told what it is": (["graphs.how=manual"], ["+scope=int8"]),
    "run in another way": (["measure.iterations=3", "capture=none"], ["+scope=int8"]),
    "the same for both": (["batch=8"], ["+scope=int8", "batch=8"]),
    "on the way of both": (["quantize=int8"], ["+scope=fused_topk", "quantize=int8"]),
    "of the same scope": ([], [*ITS_OWN, "quantize=int8"]),
}
UNFIT = {
    "what the other is": (["quantize=int8"], ["+scope=int8"], "quantize=int8 instead of none"),
    "for one of the two": (["batch=8"], ["+scope=int8"], "batch=8 instead of 1"),
    "for both, where the scopes differ": (
        ["quantize=float8"],
        ["+scope=int8", "quantize=float8"],
        "quantize=float8 instead of none",
    ),
    "of the same scope": (["quantize=int8"], [*ITS_OWN, "quantize=int8"], "quantize=int8 instead of none"),
    "two": (
        ["topk=fused", "graphs.how=compile"],
        ["+scope=int8"],
        "graphs.how=compile instead of manual, topk=fused instead of argmax",
    ),
}


@pytest.mark.parametrize("case", FIT)
def test_a_run_with_the_mechanisms_of_its_scope_is_compared_with(store: Store, make: Make, case: str) -> None:
    theirs, mine = FIT[case]
    one = make(GRAPHS, *theirs)
    assert found(store, make(*mine)) == one.id


@pytest.mark.parametrize("case", UNFIT)
def test_a_run_with_others_is_passed_over_for_an_older_one_or_with_the_reason(
    store: Store, make: Make, case: str
) -> None:
    theirs, mine, why = UNFIT[case]
    passed_over = make(GRAPHS, *theirs)
    with pytest.raises(UserError) as caught:
        found(store, make(*mine))
    assert str(caught.value) == f"{passed_over.id} was passed over, as it has {why}"
    older = make(GRAPHS, started_utc="20261130T000000Z")
    assert found(store, make(*mine)) == older.id


def test_a_run_of_the_same_machine_comes_first(store: Store, make: Make) -> None:
    here, there = make(GRAPHS), make(GRAPHS, machine="NVIDIA A100")
    assert found(store, make("+scope=int8")) == here.id
    assert found(store, make("+scope=int8", machine="NVIDIA A100")) == there.id
    assert found(store, make("+scope=int8", machine="NVIDIA L4")) == there.id, "tokens can be compared"


def test_a_name_that_is_no_file_is_whatever_was_run_under_it(store: Store, make: Make) -> None:
    one = make("+scope=speculative", "speculate.how=scripted", "speculate.acceptance=0.6", "name=drafts_0.6")
    assert found(store, make("+scope=optimized", "compare_with=drafts_0.6")) == one.id


def test_a_run_whose_configuration_is_lost_is_passed_over(store: Store, make: Make) -> None:
    one = make(GRAPHS)
    (store.outputs / one.id / "config.yaml").unlink()
    with pytest.raises(UserError, match="has no config"):
        found(store, make("+scope=int8"))


def test_nothing_of_the_scope_with_these_inputs(store: Store, make: Make) -> None:
    make(GRAPHS, inputs="others")
    with pytest.raises(UserError, match="no finished run of cuda_graphs with the same model, audio"):
        found(store, make("+scope=int8"))


@pytest.mark.parametrize("folder", sorted({path.parents[2] for path in PUBLISHED}), ids=lambda f: f.name)
def test_published_runs_find_a_run_to_compare_with(tmp_path: Path, folder: Path) -> None:
    store, published = Store(tmp_path), [Record.load(path.parent) for path in folder.glob("*/*/run.json")]
    for record in published:
        shutil.copytree(
            folder / record.id, tmp_path / record.id, ignore=shutil.ignore_patterns("*.xz", "plots")
        )
        store.put(record)
    compared = [record for record in published if (record.tokens_match or {}).get("run")]
    assert compared
    for record in compared:
        scope = OmegaConf.load(tmp_path / record.id / "config.yaml").compare_with
        assert found(store, record).split("/")[0] == scope


def test_a_run_with_other_settings_does_not_stand_for_its_scope(harness: Command, tmp_path: Path) -> None:
    assert harness("+scope=fake_one", "loop=device").returncode == 0
    done = harness("+scope=fake_two")
    one, two = records(tmp_path)
    assert done.returncode == 0 and two["tokens_match"]["identical"] is None
    said = f"not compared with fake_one: {one['id']} was passed over, as it has loop=device instead of host"
    assert said in " ".join(done.stdout.split())
