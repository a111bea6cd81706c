"""The fused decode step where there is no GPU: in the emulator, as exact as torch in half."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from unittest import mock

import pytest
import torch

from kernels import decoder_step
from kernels.decoder_step import MAX_QUERIES, DecoderStep
from tests.kernels.emulator import Emulator, emulated
from tests.kernels.emulator.compiling import missing
from tests.kernels.test_decoder_step import Pair, error

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SMALL = {"d_model": 128, "heads": 2, "mlp": 96, "vocabulary": 149, "layers": 2}
LARGER = {"d_model": 256, "heads": 4, "mlp": 352, "vocabulary": 301, "layers": 3}


class Heard(Pair):
    """That of few keys, of which the last blocks have fewer than the others, or none."""

    LENGTH, HEARD = 24, 43
    DEVICE = "cpu"


class HeardMore(Heard):
    LENGTH, HEARD = 200, 300  # whose blocks have more keys than a warp takes at once


@pytest.fixture(scope="module", autouse=True)
def emulator() -> Iterator[Emulator]:
    """Of so few multiprocessors, and copies of the vocabulary under way, that blocks take several turns."""
    with emulated(multiprocessors=2) as running, mock.patch.object(decoder_step, "_stages", lambda *_: 2):
        yield running


def two_steps(both: Pair, first: int, queries: int, emulator: Emulator) -> list[torch.Tensor]:
    """Logits [queries, V] of the kernels for the tokens from `first` on, and for as many behind them. What
    stands before them is the half decoder's; the rest of the cache is NaN."""
    own_cache, cross_cache = both.caches
    own_cache.fill_(torch.nan)
    own_cache[..., :first, :] = both.half.own_cache[..., :first, :]
    packed = both.fused._weights
    found = []

    def launch(**given: torch.Tensor) -> None:
        weights = replace(packed, **{name: given[name] for name in tensors})
        step = DecoderStep(weights, given["own_cache"], given["cross_cache"], queries)
        step.logits, residual = given["logits"], given["residual"]  # in place of those that it made
        step._step.logits, step._step.residual = step.logits.data_ptr(), residual.data_ptr()
        for place in (given["place"], given["next_place"]):
            found.append(step(given["history"], place).clone())

    tensors = {field.name: getattr(packed, field.name) for field in fields(packed) if field.name != "shape"}
    emulator.run(
        launch,
        ["own_cache", "logits", "residual"],
        **tensors,
        own_cache=own_cache,
        cross_cache=cross_cache,
        logits=torch.full((queries, len(packed.vocabulary)), torch.nan),
        residual=torch.zeros(3, queries, packed.norms.shape[-1], dtype=torch.int64),
        history=both.history,
        place=both.places(first, queries),
        next_place=both.places(first + queries, queries),
    )
    return found


@torch.inference_mode()
def assert_exact(both: Pair, first: int, queries: int, emulator: Emulator) -> None:
    """The logits of two steps, and what they leave in the cache."""
    if first:
        for decoder in (both.half, both.exact):
            decoder.logits(both.history, both.places(0, first))
    for number, found in enumerate(two_steps(both, first, queries, emulator)):
        place = both.places(first + number * queries, queries)
        exact, half = (decoder.logits(both.history, place) for decoder in (both.exact, both.half))
        assert error(found, exact) < max(1.2 * error(half, exact), 1e-3), f"step {number}"
    kept, exact, end = both.caches[0], both.exact.own_cache, first + 2 * queries
    assert torch.equal(kept[..., :first, :], both.half.own_cache[..., :first, :])
    assert error(kept[..., first:end, :], exact[..., first:end, :]) < 1e-3
    assert kept[..., end:, :].isnan().all(), "written behind the last token"


def small(how: str) -> Pair:
    with emulated(multiprocessors=16):  # two clusters for the MLP, the last blocks without hidden units
        return Heard(SMALL, how)


@pytest.mark.parametrize(
    "how, queries",
    [("none", 1), ("none", 2), ("none", 5), ("int8", 4), pytest.param("int8", 1, marks=pytest.mark.slow)],
)
def test_a_decode_step_is_as_exact_as_torch_in_half(how: str, queries: int, emulator: Emulator) -> None:
    both = small(how)
    for first in (7, Heard.LENGTH - 2 * queries):  # threads in one order, then in the other
        assert_exact(both, first, queries, emulator)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["none", "int8"])
@pytest.mark.parametrize("queries", range(1, MAX_QUERIES + 1))
def test_a_larger_decode_step_is_as_exact_as_torch_in_half(
    how: str, queries: int, emulator: Emulator
) -> None:
    with emulated(multiprocessors=7):
        both = HeardMore(LARGER, how)
    for first in (0, 1, 130, HeardMore.LENGTH - 2 * queries):
        assert_exact(both, first, queries, emulator)


# Texts of the kernels for one or for several queries, and mistakes in their place.
MUTANTS = [
    ("none", 1, "clear_slice(args.residual.clear, rank);", ";"),
    ("none", 1, "base + lane / 8 < count;", "base + lane / 8 <= count;"),
    ("none", 1, "memory.barrier[warp][stage].wait(phase);", ""),
    ("none", 1, "device::wait_for_async_copies();", ""),
    ("int8", 1, "[row % kVocabRows] : 1.f", "[0] : 1.f"),
    ("none", 3, "min(kVocabRows, args.size - first)", "kVocabRows"),
    ("none", 3, "key + 1 < seen", "key < seen"),
    ("none", 3, "stage = 0, phase ^= 1;", "stage = 0;"),
    ("none", 3, "rounded(end)) *rein", "end) *rein"),
]


@pytest.mark.slow
@pytest.mark.parametrize("how, queries, right, wrong", MUTANTS)
def test_a_step_with_a_mistake_does_not_pass(how: str, queries: int, right: str, wrong: str) -> None:
    both = small(how)
    with emulated(multiprocessors=2, edits=((right, wrong),)) as emulator, pytest.raises(AssertionError):
        for first in (7, Heard.LENGTH - 2 * queries):
            assert_exact(both, first, queries, emulator)
