"""The comparison with peers: what is compared, what is kept, what is said of a contender that can't run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import book, contest, table, whisper_cpp, windows
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
from harness.errors import ExitCode, UserError
from harness.phases import HostTimer, PhaseClock, SilentAnnotator

STAMP = {"machine": "H200", "git": {"commit": "1a2b3c4d", "dirty": False}, "gpu": None}


def task(sound: Path | str = "", batch: int = 1, tokens: int = 4, device: str = "cpu") -> Task:
    return Task("tiny_random", batch, tokens, device, str(sound), warmup=1, iterations=2, seconds=1.0)


def row(name: str, batch: int = 1, **answer: Any) -> contest.Row:
    times = {"step_ms": [0.9, 1.0, 1.1], "encode_ms": [5.0] * 3, "total_ms": [99.0, 100.0, 101.0]}
    answer = {"tokens": [[1, 2, 3, 4]] * batch, "wall_s": 1.0, **times, **answer}
    return contest.row(named(name), task(batch=batch), STAMP, answer)


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
    with pytest.raises(UserError, match="no contender is called 'vllm'"):
        chosen(["flash", "vllm"])


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


def test_a_new_row_replaces_the_old_one_and_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    early = book.add(path, row("flash", batch=2))
    assert "agreement" not in early  # nothing to compare with yet
    book.add(path, row(REFERENCE, batch=2))
    found = book.add(path, row("flash", batch=2, tokens=[[1, 2, 3, 4], [1, 2, 9, 4]]))
    assert found["agreement"] | {"reference": ""} == {
        "share": 7 / 8, "windows_identical": 1, "first_difference": 2, "reference": "",
    }  # fmt: skip
    kept = book.load(path)
    assert [(one["contender"], one["batch"]) for one in kept] == [(REFERENCE, 2), ("flash", 2)]
    assert kept[0]["chosen"] == ["1 2 3 4"] * 2 and "decoded" not in kept[1]
    book.add(path, row("flash"))
    assert len(book.load(path)) == 3


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text('{"rows": [{}]}')
    with pytest.raises(UserError, match=r"bench\.json is no file of this benchmark"):
        book.add(path, row("flash"))
    assert path.read_text() == '{"rows": [{}]}'


def test_the_table_says_what_ran_how_fast_and_how_right(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    book.add(path, row(REFERENCE))
    book.add(path, row("flash", total_ms=[50.0], step_ms=[0.5], floor_bytes=1e9, notes=["said so"]))
    book.add(path, row("cuda_graphs", tokens=[[1, 2, 3, 9]]))
    book.add(path, row("openai_whisper") | {"refused": "not here (pip install a|b)"})
    book.add(path, row("whisper_cpp") | {"failed": "took more than 3 s"})
    rows = [one | {"peak_bps": 4e12} for one in book.load(path)]
    page = table.page(rows)
    lines = page.splitlines()
    assert lines[0] == "Batch 1:"
    assert "| 1.000 (0.950–1.050) |" in page and "| 100.0 (99.5–100.5) | 1.0× | reference |" in page
    assert "| `flash` | 0.500 | 50.0% | 5.00 | 50.0 | 2.0× | identical |" in lines
    assert "75.00% equal, from position 3" in page and "- `flash`: said so" in lines
    assert "not run: not here (pip install a\\|b)" in page and "FAILED: took more than 3 s" in page
    assert "H200, tiny_random" in lines[-1] and "1a2b3c4" in lines[-1]
    changed = [one | {"chosen": ["5 5 5 5"]} if one["contender"] == REFERENCE else one for one in rows]
    assert "identical" not in table.page(changed)  # they were compared with other tokens


def test_a_contender_that_takes_too_long_or_dies_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    assert contest.call(named(REFERENCE), task(), 0.2)["failed"] == "took more than 0.2 s"
    died = contest.call(Contender("nobody", "", ""), task(), 60)
    assert died["failed"].startswith("exit code 1")


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


def call(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | ({"PYTHONPATH": path} if path else {})
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_misuse_is_one_message() -> None:
    wrong = call("--device", "cpu", "--model", "tiny_random", "--tokens", "5000")
    assert wrong.returncode == ExitCode.USAGE and "2 to 444" in wrong.stderr
    empty = call("table", "--from", "nowhere.json")
    assert empty.returncode == ExitCode.USAGE and empty.stderr.startswith("error: nowhere.json has no rows")


@pytest.mark.slow
def test_the_command_measures_compares_and_fills_a_readme(tmp_path: Path) -> None:
    """openai-whisper is hidden behind a package of its name that isn't it."""
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "__init__.py").touch()
    into, readme = tmp_path / "bench.json", tmp_path / "README.md"
    few = ["--device", "cpu", "--model", "tiny_random", "--tokens", "4", "--batch", "1", "--iterations", "2"]
    only = ["--only", REFERENCE, "openai_whisper"]
    done = call(*few, *only, "--warmup", "1", "--into", str(into), path=str(tmp_path))
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    assert call("table", "--from", str(into), "--update", str(readme)).returncode == ExitCode.OK
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "1.0× | reference |" in text and "pip install openai-whisper==20250625" in text
