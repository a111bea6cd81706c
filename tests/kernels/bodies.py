"""What the kernels have to do, on a GPU (test_on_gpu.py) and in the emulator (test_emulated.py)."""

from __future__ import annotations

import torch

from kernels import accept as accepting
from kernels import fused_topk as topk
from tests.kernels.cases import Arguments, outputs
from tests.kernels.test_accept import END, State

TYPES = [torch.float32, torch.float16, torch.bfloat16]


def assert_same(arguments: Arguments, k: int, pdl: bool = False) -> None:
    """Ids exactly, numbers to 1e-5, and twice the same to the last bit."""
    logits = arguments[0]
    first, second = (outputs(len(logits), k, str(logits.device)) for _ in range(2))
    for filled in (first, second):
        topk.fused_topk(*arguments, *filled, pdl)
    ids, *numbers = topk.reference(*arguments, k)
    assert torch.equal(first[0], ids)
    for ours, expected in zip(first[1:], numbers, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def assert_accepted(state: State, end: int = END) -> None:
    """As the reference does it; the score to 1e-5."""
    expected, ours = ({name: value.clone() for name, value in state.items()} for _ in range(2))
    accepting.reference(**expected, end=end)
    accepting.accept(**ours, end=end)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5 if name == "score" else 0, msg=name)
