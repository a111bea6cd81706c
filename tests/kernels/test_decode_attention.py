"""Attention over a cache: the reference against plain softmax, the kernel against the reference."""

from __future__ import annotations

import pytest
import torch

from experiments.graphs import capture
from kernels.decode_attention import HEAD, MAX_QUERIES, decode_attention_out, reference, splits

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


def case(
    rows: int, heads: int, length: int, queries: int, own: bool, device: str, dtype: torch.dtype
) -> Case:
    """Random tensors as the op takes them; with `own` the queries stand somewhere in the cache."""
    torch.manual_seed(rows + heads + length + queries)
    like = {"device": device, "dtype": dtype}
    projected = torch.randn(rows, queries, 3 if own else 1, heads, HEAD, **like)
    keys, values = torch.randn(2, rows, heads, length, HEAD, **like)
    first = torch.randint(0, length - queries + 1, (rows, 1), device=device)
    return projected, keys, values, first + torch.arange(queries, device=device) if own else None


def attended(case: Case) -> tuple[torch.Tensor, ...]:
    """What the op makes of a case: result, keys, values; the case stays as it is."""
    projected, keys, values, positions = case
    keys, values = keys.clone(), values.clone()
    out = torch.full((*projected.shape[:2], projected.shape[3] * HEAD), torch.nan).to(projected)
    decode_attention_out(out, projected, keys, values, positions)
    return out, keys, values


def assert_attended(given: Case) -> None:
    """By a kernel as by the reference in float32, and twice the same to the last bit."""
    projected, keys, values, positions = given
    expected = reference(projected.float(), keys.float(), values.float(), positions)
    found, new_keys, new_values = attended(given)
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)
    keys, values = keys.clone(), values.clone()
    if positions is not None:
        reference(projected, keys, values, positions)  # puts keys and values into their places
    assert torch.equal(new_keys, keys) and torch.equal(new_values, values)
    assert torch.equal(attended((projected, keys, values, positions))[0], found), "the same to the last bit"


@pytest.mark.parametrize("own", [True, False])
def test_the_reference_is_softmax_over_what_a_query_sees(own: bool) -> None:
    given = case(3, 2, 20, 4, own, "cpu", torch.float64)
    projected, _, _, positions = given
    found, keys, values = attended(given)
    for row in range(3):
        for q in range(4):
            last = 19 if positions is None else int(positions[row, q])
            for head in range(2):
                if positions is not None:
                    assert torch.equal(keys[row, head, last], projected[row, q, 1, head])
                    assert torch.equal(values[row, head, last], projected[row, q, 2, head])
                scores = keys[row, head, : last + 1] @ projected[row, q, 0, head] / HEAD**0.5
                expected = scores.softmax(0) @ values[row, head, : last + 1]
                torch.testing.assert_close(found[row, q, head * HEAD : (head + 1) * HEAD], expected)


def test_what_does_not_fit_is_refused() -> None:
    projected, keys, values, positions = case(2, 3, 16, 1, True, "cpu", torch.float32)
    out = torch.empty(2, 1, 3 * HEAD)
    for wrong in (
        (out[:1], projected, keys, values, positions),
        (out, projected, keys, values, None),
        (out, projected, keys, values[:, :, :5], positions),
        (out, projected, keys.double(), values, positions),
        (out, projected, keys, values, torch.zeros(2, 2, dtype=torch.long)),
    ):
        with pytest.raises(ValueError, match="not"):
            decode_attention_out(*wrong)


def test_few_heads_are_split_and_many_are_not() -> None:
    assert [splits(heads, 132) for heads in (12, 33, 96, 264, 768)] == [8, 8, 4, 1, 1]


SHAPES = [(1, 12, 104), (1, 12, 1500), (2, 4, 448), (8, 12, 1500), (5, 6, 33), (64, 12, 104), (64, 12, 1500)]


@pytest.mark.gpu
@pytest.mark.parametrize("queries", [1, 2, 3, 4, 5, MAX_QUERIES])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_attends_as_the_reference(shape: tuple[int, int, int], own: bool, queries: int) -> None:
    assert_attended(case(*shape, queries, own, "cuda", torch.float16))


@pytest.mark.gpu
def test_large_scores_and_a_first_token_are_no_trouble() -> None:
    projected, keys, values, _ = case(2, 12, 104, 1, True, "cuda", torch.float16)
    for position in (0, 1, 63, 64, 103):
        assert_attended((projected * 60, keys * 60, values, torch.full((2, 1), position, device="cuda")))


@pytest.mark.gpu
def test_a_captured_launch_follows_the_positions(graphs: list[object]) -> None:
    projected, keys, values, positions = case(8, 12, 104, 1, True, "cuda", torch.float16)
    assert positions is not None
    out = torch.zeros(8, 1, 12 * HEAD, device="cuda", dtype=torch.float16)
    graph = capture(lambda: decode_attention_out(out, projected, keys, values, positions))
    graphs.append(graph)
    for position in range(100):
        projected.normal_()
        positions.fill_(position)
        graph.replay()
        expected = reference(projected.float(), keys.float(), values.float(), positions)
        torch.testing.assert_close(out.float(), expected, atol=2e-3, rtol=2e-3)
