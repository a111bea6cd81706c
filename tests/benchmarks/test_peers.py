"""The comparison with peers: what is compared, what is kept, what is said of a contender that can't run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.arguments import duration_s
from benchmarks.peers import contest, table, whisper_cpp, windows
from benchmarks.peers.contenders import (
    REFERENCE,
    Contender,
    Task,
    chosen,
    everyone,
    floor_bytes,
    model,
    named,
)
from benchmarks.peers.timed import Marks, timed
from experiments import floor
from harness.environment import PROJECT
from harness.errors import UserError
from harness.phases import HostTimer, PhaseClock, SilentAnnotator

STAMP = {"machine": "H200", "git": {"commit": "1a2b3c4d", "dirty": False, "diff": None}, "gpu": None}
TIMES = {"step_ms": [0.9, 1.0, 1.1], "encode_ms": [5.0] * 3, "total_ms": [99.0, 100.0, 101.0]}


def task(sound: Path | str = "", batch: int = 1, tokens: int = 4, device: str = "cpu") -> Task:
    return Task("tiny_random", batch, tokens, device, str(sound), warmup=1, iterations=2, seconds=1.0)


def answer(batch: int = 1, **more: Any) -> dict[str, Any]:
    """Of a contender's process."""
    times = {"tokens": [[1, 2, 3, 4]] * batch, **TIMES} if not {"failed", "refused"} & more.keys() else {}
    return {"started_utc": "20261122T153000Z", "wall_s": 1.0, **times, **more}


def row(name: str, batch: int = 1, stamp: dict[str, Any] = STAMP, **more: Any) -> contest.Row:
    return contest.row(named(name), task(batch=batch), stamp, answer(batch, **more))


def test_every_scope_takes_part_and_names_can_be_patterns() -> None:
    names = [one.name for one in everyone()]
    assert {file.stem for file in (PROJECT / "conf" / "scope").glob("*.yaml")} < set(names)
    assert len(set(names)) == len(names) and names[0] == REFERENCE  # before those compared with it
    assert [one.name for one in chosen(["flash", "transformers_s*"])] == [
        "transformers_sdpa", "transformers_static", "flash",
    ]  # fmt: skip
    variant = "cuda_graphs graphs.how=compile"
    assert chosen([variant]) == [named(variant)] and named(variant).argument == variant
    with pytest.raises(UserError, match="no contender is called 'vllm x=1'"):
        chosen(["vllm x=1"])
    for unknown in ("vllm", "", " ", "../config x=1"):
        with pytest.raises(UserError, match=f"no contender is called '{unknown.strip()}'"):
            chosen(["flash", unknown])


def test_a_variant_is_itself_and_takes_part_once() -> None:
    listed = "cuda_graphs hypothesis.expect=[a/b]"
    assert [one.name for one in chosen([listed, f"{listed} ", listed.replace(" ", "  ")])] == [listed]
    assert len(chosen(["*", "flash", listed])) == len(everyone()) + 1


@pytest.mark.parametrize(
    "override",
    ["batch=2", "model=bundled", "++model.name=x", "device=cpu", "audio@model=clips", "~audio",
     "+audio.max_seconds=1", "max_new_tokens=5", "+scope=flash"],
)  # fmt: skip
def test_what_a_row_stands_for_is_no_variant(override: str) -> None:
    with pytest.raises(UserError, match="is the same for all contenders"):
        chosen([f"cuda_graphs quantize=int8 {override}"])


def test_an_override_that_is_none_is_a_message() -> None:
    with pytest.raises(UserError, match=r"graphs\.how is no override"):
        chosen(["cuda_graphs graphs.how"])


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "1e300"])
def test_a_duration_is_one(text: str) -> None:
    assert duration_s("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="above 0, and a day at most"):
        duration_s(text)


def test_only_models_that_never_stop_are_compared() -> None:
    assert model("tiny_random")["new_tokens"] == 24
    with pytest.raises(UserError, match="none with random weights"):
        model("bundled")


def test_a_batch_reads_the_weights_once() -> None:
    one, eight = (floor_bytes(Task("whisper_small_random", n, 100, "cuda", "", 1, 1, 1)) for n in (1, 8))
    small = floor.Shapes(layers=12, width=768, mlp=3072, positions=1500, vocabulary=51865)
    assert (one, eight) == tuple(floor.decode_step(small, 54, 2, rows).bytes for rows in (1, 8))
    assert eight - one == 7 * 2 * (2 * 12 * 768 * (1500 + 54) + 2 * 768), "caches, and a row of embeddings"


def test_the_parent_does_without_torch_and_transformers() -> None:
    script = (
        "import sys, benchmarks.peers.contenders as c; "
        "c.floor_bytes(c.Task('tiny_random', 1, 4, 'cpu', '', 1, 1, 1)); "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT)


def test_windows_differ_and_are_the_same_every_time(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        windows.write(tmp_path / name, 4)
        found.append(windows.read(tmp_path / name))
    first, again = found
    assert [len(one) for one in first] == [480_000] * 4
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for n, one in enumerate(first):
        assert np.abs(one).max() <= 1 and all(np.abs(one - other).max() > 0.01 for other in first[:n])


class FakePeer:
    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def run(self, clock: PhaseClock) -> None:
        marks = Marks(4)
        with marks.on(clock):
            marks.encoder_begins()
            marks.encoder_ends()
            for _ in range(self._tokens):
                marks.token_chosen()

    def tokens(self) -> list[list[int]]:
        return [[7] * self._tokens]


def test_three_moments_give_the_phases() -> None:
    clock = PhaseClock(HostTimer(), SilentAnnotator())
    FakePeer(4).run(clock)
    assert {name: len(ns) for name, ns in clock.take().items()} == {"encode": 1, "prefill": 1, "decode": 1}
    found = timed(FakePeer(4), task())
    assert found["tokens"] == [[7] * 4] and len(found["step_ms"]) == len(found["total_ms"]) == 2


def test_too_few_tokens_are_no_result() -> None:
    with pytest.raises(RuntimeError, match="1 windows of 3 to 3 tokens, and 1 windows of 4 were asked for"):
        timed(FakePeer(3), task())


def test_a_contender_that_takes_too_long_or_dies_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    assert contest.call(named(REFERENCE), task(), 0.2)["failed"] == "took more than 0.2 s"
    died = contest.call(Contender("nobody", "", ""), task(), 60)
    assert died["failed"].startswith("exit code 1")


def test_any_name_has_a_log_and_the_time_is_that_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    monkeypatch.setattr(contest, "utc_now", lambda: f"{len(list(tmp_path.iterdir()))} logs")
    found = contest.call(Contender(f"../nobody a=/{'b' * 300}", "", ""), task(), 0.01)
    assert found["started_utc"] == "0 logs"
    assert [log.name[:16] for log in tmp_path.iterdir()] == [".._nobody_a=_bbb"]


def test_whisper_cpp_is_looked_for_and_its_times_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WHISPER_CPP", "WHISPER_CPP_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no whisper-bench in"):
        whisper_cpp.measure(task(), "")
    with pytest.raises(UserError, match="one window at a time"):
        whisper_cpp.measure(task(batch=8), "")
    program = tmp_path / "build" / "bin" / whisper_cpp.PROGRAM
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        "echo 'whisper_print_timings:   encode time =     6.20 ms /     1 runs (     6.20 ms per run)' >&2\n"
        "echo 'whisper_print_timings:   decode time =   435.20 ms /   256 runs (     1.70 ms per run)' >&2\n"
        "echo 'whisper_print_timings:   batchd time =   161.00 ms /   320 runs (     0.50 ms per run)' >&2\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("WHISPER_CPP", str(tmp_path))
    with pytest.raises(UserError, match="names no file"):
        whisper_cpp.measure(task(), "")
    monkeypatch.setenv("WHISPER_CPP_MODEL", str(program))
    found = whisper_cpp.measure(task(), "")
    assert (found["encode_ms"], found["step_ms"]) == ([6.2], [1.7])
    cells = table.cells(row("whisper_cpp", **found), row(REFERENCE))
    assert cells[1] == "1.700" and cells[4:] == ["–", "–", "not compared"]
    known = row("whisper_cpp", peak_bps=4e12, **found)
    assert table.cells(known, None)[2] == "–", "whose model has a floor of its own"
