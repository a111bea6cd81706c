"""The CUDA kernels against their references, alone and in graphs that are replayed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.graphs import capture
from harness import tools
from kernels import accept as accepting
from kernels import build, decode_attention
from kernels import fused_topk as topk
from tests.kernels import sanitized
from tests.kernels.bodies import TYPES, assert_accepted, assert_same
from tests.kernels.cases import Arguments, Problem, on, outputs, problems, whisper
from tests.kernels.test_accept import END, State, rounds_of_decoding

pytestmark = pytest.mark.gpu
REPLAYS, CAPTURES = 3500, 3
Graphs = Callable[[Callable[[], None]], torch.cuda.CUDAGraph]


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    """Captures, and keeps the graphs, so that no test here depends on `capture` making up for destroyed ones
    (which `tests/experiments/test_decoders.py -k gone` tests)."""
    kept: list[torch.cuda.CUDAGraph] = []

    def captured(body: Callable[[], None]) -> torch.cuda.CUDAGraph:
        kept.append(capture(body))
        return kept[-1]

    return captured


@settings(deadline=None, max_examples=300)
@given(problems(), st.integers(1, 8), st.sampled_from(TYPES), st.integers(0, 9))
def test_the_kernel_chooses_as_the_reference(
    problem: Problem, k: int, dtype: torch.dtype, padding: int
) -> None:
    assert_same(on("cuda", problem.arguments, dtype, padding), k)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("rows, queries", [(1, 1), (1, 5), (2, 1), (8, 5)])
@pytest.mark.parametrize("timestamps", [False, True])
def test_at_the_sizes_of_whisper(dtype: torch.dtype, rows: int, queries: int, timestamps: bool) -> None:
    for k in range(1, topk.MAX_K + 1):
        arguments = whisper(rows, queries, timestamps=timestamps, seed=k)
        assert_same(on("cuda", arguments, dtype, padding=7 * (k % 2)), k)


@pytest.mark.parametrize("vocabulary", [300, 65536, 65537, 140001])
def test_other_vocabularies(vocabulary: int) -> None:
    for timestamps in (False, True):
        arguments = whisper(2, 2, vocabulary, timestamps)
        for k in (1, 5):  # one has a kernel of its own
            assert_same(on("cuda", arguments, torch.float16), k)


def test_a_history_longer_than_whispers() -> None:
    logits, history, positions, begin, rules = whisper(2, 2)
    rules = replace(rules, forced=rules.forced.repeat(2))
    arguments = (logits, history.repeat(1, 2), positions + history.shape[1] - 8, begin, rules)
    assert_same(on("cuda", arguments, torch.float16), 3)


def test_where_all_is_the_same_or_nothing_is_left() -> None:
    logits, *rest = on("cuda", whisper(2, 2), torch.float16)
    for value in (0.0, float("nan"), float("-inf"), float("inf")):
        assert_same((torch.full_like(logits, value), *rest), 8)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=300)
@given(rounds_of_decoding())
def test_the_accept_kernel_does_what_the_reference_does(state: State) -> None:
    assert_accepted({name: value.cuda() for name, value in state.items()})


def test_the_ops_are_ones_that_torch_can_trust() -> None:
    *tensors, rules = on("cuda", whisper(2, 2), torch.float16)
    flat = (rules.banned, rules.forced, rules.end, rules.timestamp_begin, rules.max_initial_timestamp)
    torch.library.opcheck(topk.fused_topk_out, (*tensors, *flat, *outputs(4, 3, "cuda")))
    state = {name: value.cuda() for name, value in decoding(2, 3).items()}
    torch.library.opcheck(accepting.accept, (), state | {"end": END})


def decoding(rows: int, queries: int) -> State:
    """A state of decoding at its beginning."""
    return {
        "history": torch.zeros(rows, 448, dtype=torch.long),
        "position": torch.zeros(rows, dtype=torch.long),
        "chosen": torch.ones(rows, queries, dtype=torch.long),
        "logprobs": torch.full((rows, queries), -0.5),
        "limit": torch.full((rows,), 440),
        "running": torch.ones(rows, dtype=torch.int32),
        "any_running": torch.ones(1, dtype=torch.int32),
        "rounds": torch.zeros(rows, dtype=torch.long),
        "score": torch.zeros(rows),
    }


class Watched:
    """A choice among new random logits at another position in every call, and beside it how often it was not
    that of the reference."""

    def __init__(self, queries: int) -> None:
        self.logits, self.history, self.positions, *self.fixed = on(
            "cuda", whisper(1, queries), torch.float16, padding=queries
        )
        self.noise = torch.empty(self.logits.shape, device="cuda")
        self.filled = outputs(queries, 3, "cuda")
        self.calls, self.wrong = torch.zeros(2, dtype=torch.long, device="cuda")

    def __call__(self) -> None:
        self.logits.copy_(self.noise.normal_(std=3))
        self.positions.copy_((self.positions + 1) % 440)
        arguments = (self.logits, self.history, self.positions, *self.fixed)
        topk.fused_topk(*arguments, *self.filled)
        ids, logprobs, _ = topk.reference(*arguments, 3)
        self.wrong.add_((self.filled[0] != ids).sum())
        self.wrong.add_(((self.filled[1] - logprobs).abs() > 1e-5).sum())
        self.calls.add_(1)


def test_ten_thousand_replays_over_captures_without_a_wrong_token(graphs: Graphs) -> None:
    """Earlier graphs go on being replayed among the later ones, as in a decoder with several shapes."""
    torch.manual_seed(0)
    watched: list[tuple[Watched, torch.cuda.CUDAGraph]] = []
    for index in range(CAPTURES):
        choice = Watched(1 + 2 * index)
        watched.append((choice, graphs(choice)))
        for _ in range(REPLAYS):
            for _, graph in watched:
                graph.replay()
    assert sum(int(choice.calls) for choice, _ in watched) >= CAPTURES * REPLAYS
    assert [int(choice.wrong) for choice, _ in watched] == [0] * CAPTURES


class Naive:
    """A choice the usual wrong way: in a workspace that is allocated anew when a call needs a larger one."""

    def __init__(self) -> None:
        self._workspace = torch.empty(0, device="cuda")

    def __call__(self, arguments: Arguments, ids: torch.Tensor) -> None:
        logits = arguments[0]
        if self._workspace.numel() < logits.numel():
            self._workspace = torch.empty(logits.numel(), device="cuda")
        scores = self._workspace[: logits.numel()].view_as(logits)
        scores.copy_(logits)
        ids.copy_(scores.argmax(-1, keepdim=True))


class Ours:
    """Outputs made once for each shape, as the decoder does."""

    def __init__(self) -> None:
        self._rest: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, arguments: Arguments, ids: torch.Tensor) -> None:
        rows = ids.shape[0]
        if rows not in self._rest:
            self._rest[rows] = outputs(rows, 1, "cuda")[1:]
        topk.fused_topk(*arguments, ids, *self._rest[rows])


def overwritten_by_replays(choose: Naive | Ours, graphs: Graphs) -> int:
    """Capture a choice of one row, make one of five rows, give freed memory to others, replay: how many of
    these others then hold something else."""
    one, five = (on("cuda", whisper(1, queries, timestamps=False)) for queries in (1, 5))
    chosen, more = (torch.zeros(queries, 1, dtype=torch.long, device="cuda") for queries in (1, 5))
    choose(one, chosen)
    graph = graphs(lambda: choose(one, chosen))
    choose(five, more)
    others = [torch.zeros(one[0].numel(), device="cuda") for _ in range(64)]
    chosen.fill_(-7)
    graph.replay()
    torch.cuda.synchronize()
    assert chosen.item() >= 0, "the graph ran"
    return sum(int(other.any()) for other in others)


def test_the_pointer_conflict_is_reproduced_and_ours_is_free_of_it(graphs: Graphs) -> None:
    assert overwritten_by_replays(Naive(), graphs) > 0, "a naive workspace, now someone else's memory"
    assert overwritten_by_replays(Ours(), graphs) == 0


def test_dependent_launches_in_a_graph_change_no_result(graphs: Graphs) -> None:
    """Logits, choice and acceptance ten times in a chain; each kernel may start before the last one ended."""

    def decoded(pdl: bool) -> State:
        logits, _, _, begin, rules = on("cuda", whisper(3, 1, timestamps=False), torch.float16)
        source, logsumexp = logits.clone(), torch.zeros(3, device="cuda")
        state = {name: value.cuda() for name, value in decoding(3, 1).items()}
        tables = (state["history"], state["position"], begin, rules)
        out = (state["chosen"], state["logprobs"], logsumexp)

        def body() -> None:
            for step in range(10):
                logits.copy_(source.roll(step, 1))
                topk.fused_topk(logits, *tables, *out, pdl)
                accepting.accept(**state, end=rules.end, pdl=pdl)

        graph = graphs(body)
        for _ in range(20):
            graph.replay()
        return state

    usual, dependent = decoded(False), decoded(True)
    assert usual["position"].min() > 100
    for name, value in usual.items():
        assert torch.equal(dependent[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    found = tools.find(
        "compute-sanitizer", ("/usr/local/cuda*/bin/compute-sanitizer", "/opt/nvidia/**/compute-sanitizer")
    )
    if found is None:
        pytest.skip("NOT TESTED: no compute-sanitizer in PATH, /usr/local/cuda or /opt/nvidia")
    for source in (topk.SOURCE, accepting.SOURCE, decode_attention.SOURCE):
        build.library(source)  # not under the tool
    # Each tensor an allocation of its own, or the tool takes what lies between them for valid memory.
    alone = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [found, "--tool", tool, "--error-exitcode=9", sys.executable, "-m", sanitized.__name__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=alone)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 errors" in done.stdout or "0 hazards" in done.stdout, done.stdout
    assert sanitized.DONE in done.stdout
