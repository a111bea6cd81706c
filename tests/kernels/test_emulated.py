"""The CUDA kernels against their references where there is no GPU: in the emulator, which compiles their
sources for the CPU, at sizes that it can run in a moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import accept as accepting
from kernels import fused_topk as topk
from kernels import int8_gemv
from kernels.decode_attention import MAX_QUERIES, decode_attention_out
from kernels.int8_gemv import DTYPES, Plan
from tests.kernels import test_decode_attention as attention
from tests.kernels import test_int8_gemv as gemv
from tests.kernels.bodies import TYPES, assert_accepted, assert_same
from tests.kernels.cases import Problem, on, problems, whisper
from tests.kernels.emulator import Emulator, emulated
from tests.kernels.emulator.compiling import missing
from tests.kernels.sanitized import many_rows
from tests.kernels.test_accept import State, rounds_of_decoding

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
OPS = (topk.fused_topk_out, accepting.accept, decode_attention_out, int8_gemv.int8_linear_out)


@pytest.fixture(scope="module", autouse=True)
def emulator() -> Iterator[Emulator]:
    int8_gemv.launcher.cache_clear()
    with emulated(*OPS) as running:
        yield running
    int8_gemv.launcher.cache_clear()


@settings(deadline=None, max_examples=60)
@given(problems(), st.integers(1, 8), st.sampled_from(TYPES), st.integers(0, 9))
def test_fused_topk_chooses_as_the_reference(
    problem: Problem, k: int, dtype: torch.dtype, padding: int
) -> None:
    assert_same(on("cpu", problem.arguments, dtype, padding), k)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("timestamps", [False, True])
def test_fused_topk_at_the_sizes_of_whisper(dtype: torch.dtype, timestamps: bool) -> None:
    for k in range(1, topk.MAX_K + 1):
        arguments = whisper(1 + k % 2, 1 + k % 3, timestamps=timestamps, seed=k)
        assert_same(on("cpu", arguments, dtype, padding=7 * (k % 2)), k)


# The ends of aligned groups and of what the warps take at once, on both sides.
@pytest.mark.parametrize("vocabulary", [300, 8191, 8192, 65537, 140001])
def test_fused_topk_of_other_vocabularies(vocabulary: int) -> None:
    for timestamps in (False, True):
        arguments = whisper(2, 1, vocabulary, timestamps)
        for k in (1, 5):  # one has a kernel of its own
            assert_same(on("cpu", arguments, torch.float16), k)


def test_fused_topk_with_a_history_longer_than_whispers() -> None:
    logits, history, positions, begin, rules = whisper(2, 2)
    rules = replace(rules, forced=rules.forced.repeat(2))
    arguments = (logits, history.repeat(1, 2), positions + history.shape[1] - 8, begin, rules)
    assert_same(on("cpu", arguments, torch.float16), 3)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_fused_topk_where_all_is_the_same_or_nothing_is_left(dtype: torch.dtype) -> None:
    for timestamps in (False, True):
        logits, *rest = on("cpu", whisper(1, 2, timestamps=timestamps), dtype)
        for value in (0.0, -0.0, float("nan"), float("-inf"), float("inf"), torch.finfo(dtype).max):
            assert_same((torch.full_like(logits, value), *rest), 3)  # type: ignore[arg-type]
        nothing = replace(rest[-1], banned=torch.full_like(rest[-1].banned, 1))
        assert_same((logits, *rest[:-1], nothing), 3)  # type: ignore[arg-type]


def test_fused_topk_of_numbers_that_are_none_among_others() -> None:
    for seed, dtype in enumerate(TYPES):
        generator = torch.Generator().manual_seed(seed)
        logits, *rest = on("cpu", whisper(1, 2, timestamps=seed != 1), dtype)
        logits = logits.clone()
        for value, count in ((float("nan"), 4000), (float("-inf"), 4000), (float("inf"), seed), (-0.0, 4000)):
            logits.view(-1)[torch.randint(0, logits.numel(), (count,), generator=generator)] = value
        for k in (1, 8):
            assert_same((logits, *rest), k)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=150)
@given(rounds_of_decoding())
def test_accept_does_what_the_reference_does(state: State) -> None:
    assert_accepted(state)


def test_accept_takes_more_rows_than_it_has_warps() -> None:
    for _ in range(2):  # in both orders
        assert_accepted(many_rows(), end=2)


# With 1 multiprocessor no head is split, with 132 the keys are split into eight.
@pytest.mark.parametrize("multiprocessors", [1, 6, 132])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("queries", [1, 2, 3, 5, MAX_QUERIES])
def test_decode_attention_attends_as_the_reference(queries: int, own: bool, multiprocessors: int) -> None:
    with emulated(decode_attention_out, multiprocessors=multiprocessors):
        for rows, heads, length in ((2, 2, 104), (1, 3, 33), (1, 1, 9)):
            attention.assert_attended(attention.case(rows, heads, length, queries, own, "cpu", torch.float16))


@pytest.mark.slow
@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("own", [True, False])
def test_decode_attention_at_the_sizes_of_whisper(queries: int, own: bool) -> None:
    for rows, heads, length in ((1, 12, 1500), (24, 12, 448)):
        attention.assert_attended(attention.case(rows, heads, length, queries, own, "cpu", torch.float16))


def test_decode_attention_of_large_scores_and_a_first_token() -> None:
    projected, keys, values, _ = attention.case(2, 2, 104, 1, True, "cpu", torch.float16)
    for position in (0, 1, 63, 64, 103):
        attention.assert_attended((projected * 60, keys * 60, values, torch.full((2, 1), position)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n, k", [(1, 16), (7, 48), (8, 64), (9, 80), (33, 768)])
def test_int8_gemv_gives_the_sums_of_the_reference(n: int, k: int, dtype: torch.dtype) -> None:
    gemv.assert_sums(gemv.case(8, n, k, dtype, "cpu"), (1, 3, 8))


def test_int8_gemv_of_many_rows_of_weights_takes_whole_rows_per_warp() -> None:
    gemv.assert_sums(gemv.case(5, 16400, 32, torch.float16, "cpu"), (5,))


@pytest.mark.parametrize("layout", gemv.LAYOUTS)
@pytest.mark.parametrize("n, k", [(9, 80), (40, 3088)])
def test_every_layout_of_int8_gemv_gives_the_same_product(
    n: int, k: int, layout: Plan, emulator: Emulator
) -> None:
    x, weight, scale, bias = gemv.case(5, n, k, torch.float16, "cpu")
    out = torch.empty(5, n, dtype=torch.float16)
    given = {"out": out, "x": x, "weight": weight, "scale": scale, "bias": bias}
    emulator.run(int8_gemv.launch, ["out"], layout=layout, **given)
    gemv.assert_close(out, x, weight, scale, bias)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("rows, queries", [(1, 5), (8, 5)])
@pytest.mark.parametrize("timestamps", [False, True])
def test_fused_topk_of_whole_batches(dtype: torch.dtype, rows: int, queries: int, timestamps: bool) -> None:
    for k in range(1, topk.MAX_K + 1):
        assert_same(on("cpu", whisper(rows, queries, timestamps=timestamps, seed=k), dtype), k)


@pytest.mark.slow
@settings(deadline=None, max_examples=500)
@given(problems(), st.integers(1, 8), st.sampled_from(TYPES), st.integers(0, 9))
def test_fused_topk_chooses_as_the_reference_hundreds_of_times(
    problem: Problem, k: int, dtype: torch.dtype, padding: int
) -> None:
    assert_same(on("cpu", problem.arguments, dtype, padding), k)
