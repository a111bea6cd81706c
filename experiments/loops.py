"""Rounds until no row runs, captured or not: queued by the host, or all of them launched at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from experiments.graphs import capture
from experiments.options import Options
from experiments.rounds import Mark, Round, unmarked
from harness import phases
from harness.phases import PhaseClock

LAG = 2  # rounds in flight before the host asks whether any row runs: enough to hide a launch, few are wasted


class Loop(Protocol):
    def __call__(self, clock: PhaseClock) -> None:
        """Queue rounds until no row runs; the last ones may still be running on the device."""


class Step(Protocol):
    def __call__(self, mark: Mark) -> None:
        """Queue one round; `mark` is for phases within."""


def once(body: Callable[[], None], options: Options, device: str) -> Callable[[], None]:
    """What queues `body`: with graphs its graph, which is captured now."""
    return Captured(body) if _in_graphs(options, device) else body


def until_done(one_round: Round, any_running: torch.Tensor, most_rounds: int, options: Options) -> Loop:
    """The loop over a round that `options` ask for; with graphs the round is captured now.

    any_running: int32 [1], written by the round.
    """
    if not _in_graphs(options, any_running.device.type):
        return HostLoop(one_round, any_running, most_rounds)
    if options.loop == "device":
        return DeviceLoop(one_round, any_running)
    return HostLoop(Captured(one_round), any_running, most_rounds)


def _in_graphs(options: Options, device: str) -> bool:
    return options.graphs != "none" and device != "cpu"


class Captured:
    """A body as a graph. What it captured lives as long as it does: graphs go on using that memory."""

    def __init__(self, body: Callable[[], None]) -> None:
        self._body = body
        self._graph = capture(body)

    def __call__(self, mark: Mark = unmarked) -> None:
        """Queue it; there are no phases within."""
        self._graph.replay()


class HostLoop:
    """The host queues round after round and looks LAG rounds behind whether any row still runs."""

    def __init__(self, step: Step, any_running: torch.Tensor, most_rounds: int) -> None:
        self._step = step
        self._most_rounds = most_rounds
        self._arrivals = _Arrivals(any_running, most_rounds + 1)

    def __call__(self, clock: PhaseClock) -> None:
        self._arrivals.post(0)
        for index in range(1, self._most_rounds + 1):
            if index >= LAG and not self._arrivals.get(index - LAG):
                return
            with clock.phase(phases.DECODE_STEP, payload=index):
                self._step(clock.phase)
                self._arrivals.post(index)


class DeviceLoop:
    """One launch of a graph that repeats the round while any row runs: the host takes no part."""

    def __init__(self, one_round: Round, any_running: torch.Tensor) -> None:
        from kernels.while_graph import WhileGraph

        self._round = one_round
        self._round_graph = capture(one_round, keep_graph=True)  # whose memory the launched one works in
        self._graph = WhileGraph(self._round_graph, any_running)

    def __call__(self, clock: PhaseClock) -> None:
        self._graph.launch()


class _Arrivals:
    """Copies of a flag to the host, each with a slot and an event of its own: none waits for another."""

    def __init__(self, flag: torch.Tensor, count: int) -> None:
        """flag: int32 [1]."""
        self._flag = flag
        on_gpu = flag.is_cuda
        self._slots = torch.zeros(count, dtype=flag.dtype, pin_memory=on_gpu)
        self._events = [torch.cuda.Event() for _ in range(count)] if on_gpu else []

    def post(self, index: int) -> None:
        """Queue the copy of the flag as it will be then."""
        self._slots[index : index + 1].copy_(self._flag, non_blocking=True)
        if self._events:
            self._events[index].record()

    def get(self, index: int) -> bool:
        """Wait for copy number `index` and return it."""
        if self._events:
            self._events[index].synchronize()
        return bool(self._slots[index])
