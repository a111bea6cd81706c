"""`python -m tests.kernels.sanitized`: the kernels alone, no other on the device, for compute-sanitizer."""

from __future__ import annotations

import torch

from kernels.accept import accept, reference
from kernels.decode_attention import HEAD, decode_attention_out
from kernels.decode_attention import reference as attention_reference
from kernels.fused_topk import fused_topk
from kernels.fused_topk import reference as topk_reference
from tests.kernels.cases import on, whisper
from tests.kernels.test_accept import State
from tests.kernels.test_decode_attention import case

DONE = "all as the references say"


def choices() -> None:
    """Rows that are aligned and that are not, all types, one tile and several."""
    for vocabulary, dtype, k in (
        (51865, torch.float16, 8),
        (300, torch.bfloat16, 3),
        (70001, torch.float32, 1),
    ):
        for timestamps in (False, True):
            arguments = whisper(1, 3, vocabulary, timestamps)
            expected = topk_reference(*arguments, k)
            filled = [torch.zeros_like(result).to("cuda") for result in expected]
            fused_topk(*on("cuda", arguments, dtype), *filled)
            assert torch.equal(filled[0].cpu(), expected[0])
            torch.testing.assert_close(filled[1].cpu(), expected[1], rtol=1e-5, atol=1e-5)


def many_rows() -> State:
    """40 rows for 32 warps, with drafts up to the last index of history, in the last row also behind it."""
    generator = torch.Generator().manual_seed(0)
    limit = torch.randint(1, 20, (40,), generator=generator)
    limit[-1] = 19
    return {
        "history": torch.randint(0, 3, (40, 20), generator=generator),
        "position": (limit - 3).clamp(min=0),
        "chosen": torch.randint(0, 3, (40, 6), generator=generator),
        "logprobs": torch.full((40, 6), -0.5),
        "limit": limit,
        "running": (torch.rand(40, generator=generator) < 0.5).int().index_fill(0, torch.tensor(39), 1),
        "any_running": torch.zeros(1, dtype=torch.int32),
        "rounds": torch.zeros(40, dtype=torch.long),
        "score": torch.zeros(40),
    }


def rounds() -> None:
    state = many_rows()
    ours = {name: value.to("cuda") for name, value in state.items()}
    accept(**ours, end=2)
    reference(**state, end=2)
    for name, value in state.items():
        assert torch.equal(ours[name].cpu(), value), name


def attention() -> None:
    """Heads that the blocks of a cluster share, and heads for one block; caches of both kinds."""
    for rows, heads, length, queries in ((1, 12, 104, 1), (70, 4, 33, 3)):
        for own in (True, False):
            projected, keys, values, positions = case(rows, heads, length, queries, own, "cpu", torch.float16)
            expected = attention_reference(projected.float(), keys.float(), values.float(), positions)
            ours = [projected.to("cuda"), keys.to("cuda"), values.to("cuda")]
            out = torch.zeros(rows, queries, heads * HEAD, dtype=torch.float16).to("cuda")
            decode_attention_out(out, *ours, None if positions is None else positions.to("cuda"))
            torch.testing.assert_close(out.cpu().float(), expected, atol=2e-3, rtol=2e-3)


if __name__ == "__main__":
    choices()
    rounds()
    attention()
    print(DONE)
