"""Loops over rounds, with graphs that are stood in for: what is captured, and how long it lives."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from experiments import loops
from experiments.options import Options
from experiments.rounds import Mark, unmarked
from harness.phases import DECODE_STEP, HostTimer, PhaseClock, SilentAnnotator
from kernels import while_graph

ROUNDS = 5


class Countdown:
    """A round that clears `running` after ROUNDS of them, and counts the calls."""

    def __init__(self, running: torch.Tensor) -> None:
        self.running = running
        self.done = torch.zeros_like(running)

    def __call__(self, mark: Mark = unmarked) -> None:
        self.done += self.running
        self.running.copy_(self.done < ROUNDS)


class Graph:
    """Like CUDA's, it keeps nothing alive of what it captured."""

    def __init__(self, body: Any, keep_graph: bool = False) -> None:
        self.body = weakref.ref(body)
        self.keep_graph = keep_graph

    def replay(self) -> None:
        body = self.body()
        assert body is not None, "its memory is somebody else's"
        body()


class While:
    """The launch of a graph until the flag is cleared."""

    def __init__(self, graph: Graph, running: torch.Tensor) -> None:
        assert graph.keep_graph
        self.launch = lambda: [graph.replay() for _ in iter(lambda: bool(running), False)]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "capture", Graph)
    monkeypatch.setattr(while_graph, "WhileGraph", While)
    monkeypatch.setattr(loops, "_in_graphs", lambda options, device: options.graphs != "none")


def steps(loop: loops.Loop) -> int:
    """Phases of decode steps that it opens."""
    clock = PhaseClock(HostTimer(), SilentAnnotator())
    loop(clock)
    return len(clock.take().get(DECODE_STEP, []))


@pytest.mark.parametrize(
    ("options", "opened"),
    [
        (Options("sdpa", "static"), ROUNDS + loops.LAG - 1),
        (Options("sdpa", "static", "manual"), ROUNDS + loops.LAG - 1),
        (Options("sdpa", "static", "manual", "device"), 0),
    ],
    ids=["no graphs", "host", "device"],
)
def test_who_keeps_a_loop_keeps_what_it_captured(options: Options, opened: int, graphs: None) -> None:
    running = torch.ones(1, dtype=torch.int32)
    one_round = Countdown(running)
    done = one_round.done
    loop = loops.until_done(one_round, running, 20, options)
    prefill = loops.once(lambda: done.zero_(), options, "cuda")
    del one_round
    gc.collect()
    assert steps(loop) == opened and int(done) == ROUNDS
    prefill()
    assert int(done) == 0


def test_nothing_is_captured_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "capture", lambda *_: pytest.fail("captured"))
    options = Options("sdpa", "static", "manual", "device")
    running = torch.ones(1, dtype=torch.int32)
    assert steps(loops.until_done(Countdown(running), running, 20, options)) > 0
    loops.once(lambda: None, options, "cpu")()
