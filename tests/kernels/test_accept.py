"""Which drafts stand, against a plain loop."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import build
from kernels.accept import accept, reference

END, LENGTH = 3, 10
State = dict[str, torch.Tensor]


@st.composite
def rounds_of_decoding(draw: Any) -> State:
    """Few different tokens, so that drafts are often right and the end comes often."""
    rows, queries = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    token = st.integers(0, END)

    def grid(width: int) -> torch.Tensor:
        numbers = draw(st.lists(token, min_size=rows * width, max_size=rows * width))
        return torch.tensor(numbers).view(rows, width)

    limit = draw(st.lists(st.integers(1, LENGTH - 1), min_size=rows, max_size=rows))
    running = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), dtype=torch.int32)
    left = [
        draw(st.integers(1 if runs else 0, last)) for runs, last in zip(running.tolist(), limit, strict=True)
    ]
    position = torch.tensor([last - room for last, room in zip(limit, left, strict=True)])
    history, chosen = grid(LENGTH), grid(queries)
    return {
        "history": history,
        "position": position,
        "chosen": chosen,
        "logprobs": -(chosen + 1.0) / 8,
        "limit": torch.tensor(limit),
        "running": running,
        "any_running": torch.full((1,), 7, dtype=torch.int32),
        "rounds": torch.arange(rows),
        "score": torch.zeros(rows),
    }


def by_hand(state: State) -> dict[str, list[Any]]:
    after: dict[str, list[Any]] = {name: value.tolist() for name, value in state.items()}
    for row, runs in enumerate(after["running"]):
        if not runs:
            continue
        after["rounds"][row] += 1
        drafts = list(after["history"][row])
        start = after["position"][row]
        for query, token in enumerate(after["chosen"][row]):
            place = start + 1 + query
            after["history"][row][place] = token
            after["position"][row] = place
            after["score"][row] += after["logprobs"][row][query]
            if token == END or place == after["limit"][row]:
                after["running"][row] = 0
                break
            if drafts[place] != token:
                break
    after["any_running"] = [int(any(after["running"]))]
    return after


def call(state: State) -> None:
    accept(**state, end=END)


@settings(deadline=None)
@given(rounds_of_decoding())
def test_a_round_is_what_a_plain_loop_does(state: State) -> None:
    expected = by_hand(state)
    call(state)
    for name, value in state.items():
        assert value.tolist() == expected[name], name


def greedy(tokens: list[int], limit: int) -> tuple[State, list[int]]:
    """Feed tokens one by one; what history holds at the end."""
    state = {
        "history": torch.zeros(1, LENGTH, dtype=torch.long),
        "position": torch.tensor([0]),
        "limit": torch.tensor([limit]),
        "running": torch.ones(1, dtype=torch.int32),
        "any_running": torch.ones(1, dtype=torch.int32),
        "rounds": torch.zeros(1, dtype=torch.long),
        "score": torch.zeros(1),
    }
    for token in tokens:
        call(state | {"chosen": torch.tensor([[token]]), "logprobs": torch.tensor([[-1.0]])})
    return state, state["history"][0, 1 : int(state["position"][0]) + 1].tolist()


def test_greedy_decoding_stops_at_the_end_token_and_at_the_limit() -> None:
    state, said = greedy([1, 2, END, 1, 1], limit=9)
    assert said == [1, 2, END] and state["rounds"].item() == 3 and state["score"].item() == -3.0
    assert state["any_running"].item() == 0
    assert greedy([1, 2, 1, 1], limit=2)[1] == [1, 2]


def test_a_choice_of_nothing_ends_with_probability_zero() -> None:
    """What fused_topk gives where every token is forbidden."""
    state, _ = greedy([1], limit=9)
    call(state | {"chosen": torch.tensor([[END]]), "logprobs": torch.tensor([[-math.inf]])})
    assert state["score"].item() == -math.inf and state["running"].item() == 0


def test_the_reference_compiles_as_one_graph() -> None:
    state, _ = greedy([1], limit=9)
    arguments = state | {"chosen": torch.tensor([[2, 1]]), "logprobs": torch.full((1, 2), -1.0)}
    torch.compile(reference, fullgraph=True, backend="aot_eager")(**arguments, end=END)
    assert state["history"][0, :3].tolist() == [0, 1, 2] and state["position"].item() == 2


def test_where_the_kernel_cannot_be_built_torch_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(build, "obstacle", lambda source: f"{source.name} needs nvcc")
    monkeypatch.setattr(build, "library", lambda *_: pytest.fail("built"))
    state, _ = greedy([1], limit=9)
    arguments = state | {"chosen": torch.tensor([[2, 1]]), "logprobs": torch.full((1, 2), -1.0)}
    accept._backend_fns["cuda"](**arguments, end=END, pdl=True)
    assert state["history"][0, :3].tolist() == [0, 1, 2] and state["position"].item() == 2


def test_the_op_is_one_that_torch_can_trust() -> None:
    state, _ = greedy([1], limit=9)
    arguments = state | {"chosen": torch.tensor([[2, 1]]), "logprobs": torch.zeros(1, 2), "end": END}
    torch.library.opcheck(accept, (), arguments)
