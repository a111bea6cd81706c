"""The benchmarks of kernels: both sides choose the same, and what is said where there is no GPU."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch

from benchmarks import decode_attention, decoder_step, int8_gemv, replays, topk
from harness.errors import ExitCode
from kernels.fused_topk import reference


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.gpu
def test_both_sides_choose_the_same(k: int, timestamps: bool) -> None:
    case = topk.Case(5, k, timestamps)
    case.fused()
    ids, logprobs = case.ids.clone(), case.logprobs.clone()
    case.unfused()
    torch.testing.assert_close(case.logprobs, logprobs, rtol=1e-5, atol=1e-5)
    # of equal logits topk may take any
    assert torch.equal(case.logits.gather(1, case.ids), case.logits.gather(1, ids))


@pytest.mark.parametrize("k", [1, 4])
def test_torch_chooses_without_sorting_where_one_is_wanted(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = topk.Case(5, k, timestamps=False, device="cpu")
    called = []
    sort = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda *given: (called.append(1), sort(*given))[1])
    case.unfused()
    assert len(called) == (k > 1)
    given = (case.logits, case.history, case.positions, case.begin, case.rules, k)
    torch.testing.assert_close(case.logprobs, reference(*given)[1])


def test_the_table_names_the_ratio() -> None:
    found = [topk.Row(True, 5, 8, 0.15, 4.0, 5.0, 3.0, 120.0, 130.0)]
    header, line, row = topk.table(found).splitlines()
    assert header.count("|") == line.count("|") == row.count("|")
    assert row == "| timestamps | 5 | 8 | 0.150 | 4.00 | 5.00 | 3.00 | 120.0 | 130.0 | 30.0× |"


def test_the_floor_of_attention_is_keys_and_values() -> None:
    assert decode_attention.floor_us(64, own=False) == pytest.approx(68.6, abs=0.1)
    found = [decode_attention.Row(64, False, 68.6, 80.0, 140.0)]
    assert decode_attention.table(found).endswith("| 64 | 68.60 | 80.00 | 86% | 140.00 | 1.8× |")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("main", [topk.main, decode_attention.main, decoder_step.main, int8_gemv.main])
def test_without_a_gpu_it_says_so(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == ExitCode.MACHINE
    assert "no CUDA GPU" in capsys.readouterr().err


class Event:
    """Recorded at 10, 11, 13, 16, ... ms: intervals of 1, 2, 3, ... ms."""

    ticks = count()

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        n = next(self.ticks)
        self.ms = 10 + n * (n + 1) / 2

    def elapsed_time(self, end: Event) -> float:
        return end.ms - self.ms


def test_a_call_takes_its_share_of_each_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = []
    graph = argparse.Namespace(replay=lambda: replayed.append(1))
    monkeypatch.setattr("experiments.graphs.capture", lambda body: graph)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert replays.times_us(lambda: None, calls=4, warmup=2, replays=3) == [250, 500, 750]
    assert len(replayed) == 5, "warm-up is not timed"


def test_where_figures_cant_be_kept_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    parser = argparse.ArgumentParser()
    arguments = ["--json", str(tmp_path)]
    assert replays.run(parser, lambda _: pytest.fail("measured"), arguments) == ExitCode.STORAGE
    assert f"{tmp_path} is a folder" in capsys.readouterr().err
