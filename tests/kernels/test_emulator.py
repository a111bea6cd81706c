"""The emulator finds what a GPU would punish, often silently, and calculates as a GPU does."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

import pytest
import torch

from kernels import accept as accepting
from kernels import build
from kernels import fused_topk as topk
from kernels.decode_attention import decode_attention_out
from tests.kernels import test_decode_attention as attention
from tests.kernels.bodies import assert_accepted, assert_same
from tests.kernels.cases import on, whisper
from tests.kernels.emulator import Emulator, Fault, emulated
from tests.kernels.emulator.compiling import HERE, missing
from tests.kernels.emulator.translate import calls
from tests.kernels.sanitized import many_rows

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
IN = torch.arange(64.0)


def run(which: int, emulator: Emulator) -> torch.Tensor:
    """A case of faults.cu. Returns its output."""
    out = torch.full((64,), torch.nan)

    def launch(given: torch.Tensor, out: torch.Tensor) -> None:
        library = build.library(HERE / "faults.cu")
        build.check(library.fault(which, *map(pointer, (given, out))), "fault")

    emulator.run(launch, ["out"], given=IN, out=out)
    return out


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def both_orders(which: int) -> list[torch.Tensor | Fault]:
    """What comes of a case, all threads in one order and in the other."""
    found: list[torch.Tensor | Fault] = []
    with emulated() as emulator:
        for _ in range(2):
            try:
                found.append(run(which, emulator))
            except Fault as fault:
                found.append(fault)
    return found


def assert_right(which: int, expected: torch.Tensor) -> None:
    for found in both_orders(which):
        assert isinstance(found, torch.Tensor) and torch.equal(found, expected), found


def test_what_is_right_gives_the_right_result_in_both_orders() -> None:
    assert_right(0, IN.flip(0))
    assert_right(13, torch.full((64,), 63.0))  # a bulk copy, and 16 bytes a thread
    assert_right(25, IN + 1)  # messages in a cluster


@pytest.mark.parametrize(
    "which, said",
    [
        (1, "lanes of a warp are at different collectives"),
        (2, "deadlock:.*32 threads from 0 on: at __syncthreads, faults.cu:.*32 threads from 32 on: ended"),
        (3, "no tensor: 0 bytes behind the end of given"),
        (4, "no tensor: 4 bytes before out|written beside out"),
        (5, "no tensor: a write to given"),
        (6, "not aligned to 16 bytes, as 'const struct float4' has to be"),
        (7, r"index 64 of 'float \[64\]'"),
        (9, "mbarrier that isn't there yet"),
        (10, "more bytes than the mbarrier expects"),
        (11, "deadlock:.*64 threads from 0 on: at an mbarrier"),
        (20, "a message to a block that may not run yet"),
        (21, "block . has ended, and its mbarrier still expects 256 bytes"),
        (22, "a message for an mbarrier that may not be there yet|isn't there yet"),
        (24, "a message to a block that has ended"),
        (23, "shared memory of block . was written after the block had ended"),
    ],
)
def test_a_fault_is_found_and_named(which: int, said: str) -> None:
    faults = [str(found) for found in both_orders(which) if isinstance(found, Fault)]
    assert any(re.search(said, fault, re.DOTALL) for fault in faults), faults
    assert_right(0, IN.flip(0))  # the next launch is none the worse for it


def test_ldmatrix_gives_two_neighbours_of_a_row_or_of_a_column() -> None:
    lane = torch.arange(32)
    group, pair = lane // 4, lane % 4 * 2  # of the third matrix, whose elements are 128 + 8 * row + column
    rows, columns = 128 + 8 * group + pair, 128 + 8 * pair + group
    assert_right(14, torch.cat([rows + 1000 * (rows + 1), columns + 1000 * (columns + 8)]).float())


@pytest.mark.slow
def test_a_thread_that_never_ends_is_stopped() -> None:
    with emulated() as emulator, pytest.raises(Fault, match="neither ends nor waits"):
        run(15, emulator)


@pytest.mark.parametrize("which", [8, 12])
def test_what_is_not_awaited_is_garbage_in_one_of_the_orders(which: int) -> None:
    found = both_orders(which)
    assert not all(isinstance(out, torch.Tensor) and torch.equal(out, IN.flip(0)) for out in found)


def test_halves_and_bfloat16_are_those_of_torch() -> None:
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    generator = torch.Generator().manual_seed(0)
    floats = (
        torch.randint(-(2**31), 2**31, (1 << 16,), generator=generator).to(torch.int32).view(torch.float32)
    )
    every_half = bits.view(torch.float16).float()
    # All halves, what lies between two of them, and any floats.
    floats[: 1 << 15] = (every_half + every_half.roll(1))[: 1 << 15] / 2
    of_half, of_bfloat16 = torch.empty(2, 1 << 16)
    half, bfloat16 = torch.empty(1 << 16, dtype=torch.float16), torch.empty(1 << 16, dtype=torch.bfloat16)
    with emulated():
        convert = build.library(HERE / "faults.cu").convert
        given = (bits, of_half, of_bfloat16, floats, half, bfloat16)
        assert convert(*map(pointer, given), len(bits)) == 0
    for found, expected in (
        (of_half, every_half),
        (of_bfloat16, bits.view(torch.bfloat16).float()),
        (half, floats.half()),
        (bfloat16, floats.bfloat16()),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_asm_becomes_calls() -> None:
    assert calls('"" : "+l"(asked), "+l"(begin)::"memory"') == "(void())"
    assert calls('"mapa.u64 %0, %1, %2;" : "=l"(remote) : "l"(mine + f(1, 2)), "r"(rank)') == (
        "(ptx::mapa_u64((remote), (mine + f(1, 2)), (rank)))"
    )
    assert calls('"ex3.f32 %0;" :: "f"(x)') == '(ptx::unknown("ex3.f32"))'
    wait = "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64"
    loop = rf'"{{\n .reg .pred p;\n" "again:\n {wait} p, [%0], 3;\n @p bra end;\n bra again;\nend:\n}}"'
    assert calls(f'{loop} ::"r"(at)') == f"(ptx::{re.sub('[.:]+', '_', wait)}((at), 3))"


def choose() -> None:
    for k in (1, 3):
        assert_same(on("cpu", whisper(2, 2), torch.float16), k)


def accept() -> None:
    assert_accepted(many_rows(), end=2)
    assert_accepted(many_rows(), end=2)


def attend() -> None:
    for own in (True, False):
        attention.assert_attended(attention.case(2, 2, 104, 2, own, "cpu", torch.float16))


def late(*mutant: object) -> object:
    return pytest.param(*mutant, marks=pytest.mark.slow)


# Texts of the kernels, and mistakes in their place.
MUTANTS = [
    (choose, "  all_sent.wait(0);\n", "\n"),
    late(choose, "2 * lane - 1),", "2 * lane),"),
    late(choose, "parts[rank * WARPS + warp]", "parts[warp * CLUSTER + rank]"),
    late(choose, "LISTS * (k / 2 + 1)", "LISTS * (k / 2)"),
    late(choose, "if (start >= (tile", "if (start > (tile"),
    late(choose, "  device::cluster_wait();\n  send(", "\n  send("),
    late(accept, "place < s.length", "place <= s.length"),
    (attend, "min(slot[u], end - 1) * kPieces", "slot[u] * kPieces"),
    late(attend, "  device::cluster_sync();", ""),
    late(attend, "  __syncthreads();\n  __half* out", "\n  __half* out"),
    late(attend, "device::in_block(of_block, 0)", "device::in_block(of_block, 1)"),
]


@pytest.mark.parametrize("body, right, wrong", MUTANTS)
def test_a_kernel_with_a_mistake_does_not_pass(body: Callable[[], None], right: str, wrong: str) -> None:
    ops = (topk.fused_topk_out, accepting.accept, decode_attention_out)
    with emulated(*ops, edits=((right, wrong),)), pytest.raises(AssertionError):
        body()
