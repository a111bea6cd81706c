"""The choice of the next token, against transformers' own processors and against plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from harness.errors import UserError
from kernels.fused_topk import fused_topk, fused_topk_out, reference
from kernels.logit_rules import LogitRules, masked_logits
from tests.kernels.cases import (
    END,
    LENGTH,
    NO_TIMESTAMPS,
    TIMESTAMP_BEGIN,
    VOCABULARY,
    Arguments,
    Problem,
    outputs,
    problems,
)


def processed(problem: Problem, query: int) -> torch.Tensor:
    """The scores [V] of one query after transformers' processors."""
    row = query // (len(problem.positions) // len(problem.begin))
    begin, upto = int(problem.begin[row]), int(problem.positions[query]) + 1
    said = problem.history[row : row + 1, :upto]
    scores = problem.logits[query : query + 1].float()
    scores = SuppressTokensLogitsProcessor(problem.suppress)(said, scores)
    scores = SuppressTokensAtBeginLogitsProcessor(problem.begin_suppress, begin)(said, scores)
    if problem.rules.timestamp_begin >= 0:
        highest = problem.rules.max_initial_timestamp
        config = GenerationConfig(eos_token_id=END, no_timestamps_token_id=NO_TIMESTAMPS)
        config.max_initial_timestamp_index = highest if highest >= 0 else None
        scores = WhisperTimeStampLogitsProcessor(config, begin)(said, scores)
    return scores[0]


ONLY_FINITE = st.integers(-64, 64).map(lambda eighths: eighths / 8)


@settings(deadline=None)
@given(problems(forced=False, logits=ONLY_FINITE))
def test_the_rules_are_those_of_transformers(problem: Problem) -> None:
    ours = masked_logits(*problem.arguments)
    for query in range(len(problem.positions)):
        assert torch.equal(ours[query], processed(problem, query))


@settings(deadline=None)
@given(problems(), st.integers(1, 8))
def test_choices_are_the_largest_allowed_logits_and_their_probabilities(problem: Problem, k: int) -> None:
    scores = masked_logits(*problem.arguments).tolist()
    ids, logprobs, logsumexp = reference(*problem.arguments, k)
    for query, row in enumerate(scores):
        order = sorted((-value, token) for token, value in enumerate(row) if value > -math.inf)[:k]
        wanted = [token for _, token in order] + [END] * (k - len(order))
        assert ids[query].tolist() == wanted
        total = -math.inf
        if order:
            top = -order[0][0]
            total = top + math.log(math.fsum(math.exp(value - top) for value in row))
        assert logsumexp[query].item() == pytest.approx(total, rel=1e-6, abs=1e-6)
        expected = [-value - total for value, _ in order] + [-math.inf] * (k - len(order))
        assert logprobs[query].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def small(logits: list[float], k: int = 2, **rules: object) -> tuple[list[int], list[float]]:
    """Choice and log-probabilities of one row right behind a prompt of one token; 5 is the end."""
    row = torch.tensor([logits])
    made = LogitRules.build(len(logits), 4, 5, **rules)  # type: ignore[arg-type]
    begin = torch.tensor([1])
    ids, logprobs, _ = reference(row, torch.zeros(1, 4, dtype=torch.long), torch.tensor([0]), begin, made, k)
    return ids[0].tolist(), logprobs[0].tolist()


def test_of_equal_logits_the_smaller_id_wins() -> None:
    assert small([1.0, 3.0, 3.0, 3.0, 0.0, 3.0], 3)[0] == [1, 2, 3]
    assert small([-0.0, 0.0, -1.0, -1.0, -1.0, -1.0])[0] == [0, 1]


def test_what_is_no_number_is_never_chosen() -> None:
    nan, inf = float("nan"), float("inf")
    assert small([nan, 1.0, nan, 2.0, -inf, nan])[0] == [3, 1]
    ids, logprobs = small([nan, 1.0, inf, 2.0, -inf, nan])
    assert ids == [2, 3] and logprobs[0] == 0.0 and logprobs[1] < -1e38


def test_with_nothing_left_decoding_ends() -> None:
    assert small([1.0] * 6, suppress=range(6)) == ([5, 5], [-math.inf] * 2)
    assert small([float("nan")] * 6) == ([5, 5], [-math.inf] * 2)


def test_a_forced_token_is_certain_even_if_suppressed() -> None:
    nothing = [float("nan")] * 6
    assert small(nothing, forced={1: 2}, suppress=[2]) == ([2, 5], [0.0, -math.inf])
    assert small([0.0, 9.0, 0.0, 0.0, 0.0, 0.0], forced={2: 2})[0] == [1, 0], "another index"


def test_rules_that_cannot_be_meant_are_refused() -> None:
    for wrong in ({"suppress": [6]}, {"forced": {4: 0}}, {"forced": {0: -1}}, {"timestamp_begin": 0}):
        with pytest.raises(UserError, match="outside"):
            small([0.0] * 6, **wrong)


def example() -> Arguments:
    generator = torch.Generator().manual_seed(1)
    rules = LogitRules.build(
        VOCABULARY, LENGTH, END, [3], [4], {9: 1}, timestamp_begin=TIMESTAMP_BEGIN, max_initial_timestamp=3
    )
    history = torch.randint(0, VOCABULARY, (2, LENGTH), generator=generator)
    logits = torch.randn(6, VOCABULARY, generator=generator)
    return logits, history, torch.tensor([2, 3, 4, 8, 9, 10]), torch.tensor([3, 2]), rules


def test_the_op_is_one_that_torch_can_trust() -> None:
    *tensors, rules = example()
    flat = (rules.banned, rules.forced, rules.end, rules.timestamp_begin, rules.max_initial_timestamp)
    torch.library.opcheck(fused_topk_out, (*tensors, *flat, *outputs(6, 3)))


@pytest.mark.parametrize(
    "change, named",
    [
        ({"ids": torch.empty(6, 9, dtype=torch.long)}, "k is 9, not between 1 and 8"),
        ({"ids": torch.empty(6, 3, dtype=torch.int32)}, "ids is torch.int32"),
        ({"begin": torch.zeros(3, dtype=torch.long)}, r"begin is torch.int64 \[3\]"),
        ({"positions": torch.zeros(12, dtype=torch.long)[::2]}, "positions is not contiguous"),
        ({"logits": torch.zeros(5, VOCABULARY)}, "5 rows of logits"),
        ({"logits": torch.zeros(6, VOCABULARY, dtype=torch.float64)}, "logits are torch.float64"),
        ({"banned": torch.zeros(VOCABULARY + 1, dtype=torch.uint8)[1:]}, "multiple of 8"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], named: str) -> None:
    logits, history, positions, begin, rules = example()
    ids, logprobs, logsumexp = outputs(6, 3)
    tensors = {"logits": logits, "history": history, "positions": positions, "begin": begin}
    tensors |= {"ids": ids, "logprobs": logprobs, "logsumexp": logsumexp}
    if "banned" in change:
        rules = replace(rules, banned=change.pop("banned"))
    with pytest.raises(ValueError, match=named):
        fused_topk(**(tensors | change), rules=rules)


def test_the_reference_compiles_as_one_graph() -> None:
    compiled = torch.compile(reference, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(*example(), 3), reference(*example(), 3), strict=True):
        assert torch.equal(ours, expected)


def test_the_op_fills_its_outputs() -> None:
    arguments = example()
    filled = outputs(6, 3)
    fused_topk(*arguments, *filled)
    for ours, expected in zip(filled, reference(*arguments, 3), strict=True):
        assert torch.equal(ours, expected)
