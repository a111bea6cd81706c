"""The int8 GEMV gives the sums of its reference, whatever the shape, and refuses what it can't read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from kernels import build
from kernels.int8_gemv import (
    DTYPES,
    MAX_ROWS,
    SOURCE,
    Plan,
    int8_linear,
    int8_linear_out,
    launch,
    plan,
    reference,
)

# Whisper's layers (tiny to large), its vocabulary, and edges: one row, odd rows, K of one load, a rest.
SHAPES = [
    (384, 384), (768, 768), (2304, 768), (3072, 768), (768, 3072), (1280, 5120), (51865, 768), (51866, 1280),
    (1, 16), (7, 48), (8, 64), (9, 80), (33, 6000), (17000, 1040),
]  # fmt: skip
LAYOUTS = [Plan(1, 1, 4), Plan(1, 8, 12), Plan(3, 6, 4), Plan(20, 20, 4), Plan(4, 8, 12)]

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


def case(
    m: int, n: int, k: int, dtype: torch.dtype, device: str, *, bias: bool = True, seed: int = 0
) -> Case:
    """x, weight, scale and bias; the int8 weights have their whole range."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-128, 128, (n, k), generator=generator, dtype=torch.int8)
    x = torch.randn(m, k, generator=generator).to(dtype)
    scale = (torch.rand(n, 1, generator=generator) / 1000 + 1e-4).to(dtype)
    shift = torch.randn(n, generator=generator).to(dtype) if bias else None
    return x.to(device), weight.to(device), scale.to(device), None if shift is None else shift.to(device)


def assert_close(
    found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> None:
    """Within the rounding of the output and of float32 sums, of the product in float64."""
    wide = [x.double(), weight, scale.double(), None if bias is None else bias.double()]
    exact = reference(*wide)
    terms = x.double().abs() @ weight.double().abs().T * scale.double().T
    allowed = torch.finfo(found.dtype).eps * exact.abs() + 4e-6 * terms + 1e-7
    if found.dtype == torch.float16:
        allowed += 2**-24  # where fp16 has fewer bits
    error = (found.double() - exact).abs()
    assert bool((error <= allowed).all()), f"{(error / allowed).max():.2f} times the allowed error"


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 90)),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_int8_linear_is_the_dequantised_linear(shape: tuple[int, int, int], bias: bool, seed: int) -> None:
    """Also for rows and widths that only the fallback takes."""
    arguments = case(*shape, torch.float32, "cpu", bias=bias, seed=seed)
    found = int8_linear(*arguments)
    assert_close(found, *arguments)
    x, *others = arguments
    assert torch.equal(int8_linear(x[None], *others), found[None])


def test_inputs_that_are_not_contiguous_are_taken() -> None:
    x, *others = case(6, 10, 32, torch.float32, "cpu")
    every_second = torch.stack([x, -x], 1)[:, 0]
    assert not every_second.is_contiguous()
    assert torch.equal(int8_linear(every_second, *others), int8_linear(x, *others))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_op_is_registered_as_torch_wants_it(dtype: torch.dtype, bias: bool) -> None:
    arguments = case(3, 10, 32, dtype, "cpu", bias=bias)
    torch.library.opcheck(int8_linear_out, (torch.empty(3, 10, dtype=dtype), *arguments))


def test_the_op_compiles_without_a_graph_break() -> None:
    arguments = case(3, 10, 32, torch.float32, "cpu")
    compiled = torch.compile(int8_linear, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*arguments), int8_linear(*arguments))


def test_what_the_kernel_cannot_read_is_refused() -> None:
    x, weight, scale, bias = case(3, 10, 32, torch.float32, "cpu")
    out = torch.empty(3, 10)
    shifted = torch.empty(3 * 32 + 1)[1:].view(3, 32)
    refused = {
        "9, 32": (torch.empty(9, 10), x.repeat(3, 1), weight, scale, bias),
        "3, 24": (out, x[:, :24].contiguous(), weight[:, :24].contiguous(), scale, bias),
        "shapes": (out, x, weight, scale[:9], bias),
        "torch.float16": (out, x, weight, scale.half(), bias),
        "torch.uint8": (out, x, weight.view(torch.uint8), scale, bias),
        "contiguous": (out.T.contiguous().T, x, weight, scale, bias),
        "aligned": (out, shifted, weight, scale, bias),
    }
    for named, arguments in refused.items():
        with pytest.raises(UserError, match=named):
            int8_linear_out(*arguments)


@pytest.mark.parametrize("n, k", SHAPES)
def test_plans_cover_all_of_k_at_once_where_a_layer_is_small(n: int, k: int) -> None:
    layout = plan(n, k)
    assert layout.warps % layout.split == 0
    if n <= 8192 and k <= 5120:
        assert layout.split * layout.steps * 64 >= k


def test_the_source_compiles_without_warnings_and_spills_for_ampere(tmp_path: Path) -> None:
    """For Hopper as all sources do (test_sources)."""
    try:
        line = build.command(SOURCE, tmp_path / "gemv.so", {}, "80")
    except UserError as error:
        pytest.skip(f"NOT TESTED with nvcc: {error}")
    done = subprocess.run([*line, "-Xptxas=-v,-warn-spills"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.lower()
    assert "warning" not in said and said.count("0 bytes spill stores") == said.count("spill stores") == 6, (
        said
    )


def surrounded(x: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x and an output between NaN that must be neither read nor written over; the output's surroundings."""
    m, k = x.shape
    around = torch.full((m + 16, k), torch.nan, dtype=x.dtype, device=x.device)
    around[8 : m + 8] = x
    room = torch.full((m * n + 128,), torch.nan, dtype=x.dtype, device=x.device)
    return around[8 : m + 8], room[64 : m * n + 64].view(m, n), room


def assert_sums(given: Case, counts: Iterable[int]) -> None:
    """With so many of the rows of x, and with a bias and without."""
    every_row, weight, scale, bias = given
    for m in counts:
        x, out, room = surrounded(every_row[:m], len(weight))
        for shift in (bias, None):
            int8_linear_out(out, x, weight, scale, shift)
            assert_close(out, x, weight, scale, shift)
            assert int(room.isnan().sum()) == 128, "wrote beside its output"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, k", SHAPES)
def test_the_kernel_gives_the_sums_of_the_reference(n: int, k: int, dtype: torch.dtype) -> None:
    assert_sums(case(MAX_ROWS, n, k, dtype, "cuda"), range(1, MAX_ROWS + 1))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n, k", [(9, 80), (771, 768), (40, 3088)])
def test_every_layout_gives_the_same_product(n: int, k: int, layout: Plan) -> None:
    arguments = case(5, n, k, torch.float16, "cuda")
    out = torch.empty(5, n, dtype=torch.float16, device="cuda")
    launch(layout, out, *arguments)
    assert_close(out, *arguments)


@pytest.mark.gpu
def test_layouts_that_cannot_be_are_refused() -> None:
    arguments = case(1, 8, 64, torch.float16, "cuda")
    out = torch.empty(1, 8, dtype=torch.float16, device="cuda")
    for layout in (Plan(3, 4, 4), Plan(1, 21, 4), Plan(1, 9, 12), Plan(1, 1, 5)):
        with pytest.raises(RuntimeError, match="CUDA error"):
            launch(layout, out, *arguments)


@pytest.mark.gpu
def test_large_sums_do_not_overflow_before_they_are_scaled() -> None:
    """x · w is beyond fp16 here, where torchao's product, rounded to fp16 before scaling, is infinite."""
    x = torch.full((1, 768), 8.0, dtype=torch.float16, device="cuda")
    weight = torch.full((8, 768), 127, dtype=torch.int8, device="cuda")
    scale = torch.full((8, 1), 0.001, dtype=torch.float16, device="cuda")
    assert_close(int8_linear(x, weight, scale), x, weight, scale, None)


@pytest.mark.gpu
@pytest.mark.parametrize("n, k", [(768, 3072), (51865, 768)])
def test_replays_give_the_same_bits_and_see_new_inputs(
    n: int, k: int, graphs: list[torch.cuda.CUDAGraph]
) -> None:
    """The output is allocated during the capture, from the graph's pool: its address never changes."""
    x, *others = case(3, n, k, torch.float16, "cuda")
    int8_linear(x, *others)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = int8_linear(x, *others)
    graphs.append(graph)
    for seed in range(20):
        x.copy_(case(3, 1, k, torch.float16, "cuda", seed=seed)[0])
        expected = int8_linear(x, *others)
        for _ in range(50):
            graph.replay()
        assert torch.equal(out, expected)


@pytest.mark.gpu
def test_programmatic_launch_waits_for_its_input(graphs: list[torch.cuda.CUDAGraph]) -> None:
    """A chain of layers, each the input of the next, starting early and not: bit for bit the same."""

    def chain(overlap: bool) -> torch.Tensor:
        outs = [x, *(torch.empty_like(x) for _ in range(32))]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for before, after in pairwise(outs):
                launch(Plan(3, 3, 4, overlap), after, before, weight, scale, None)
        graphs.append(graph)
        for _ in range(20):
            graph.replay()
        return outs[-1]

    x, weight, _, _ = case(4, 768, 768, torch.float16, "cuda")
    scale = torch.full(
        (768, 1), 1 / (74 * 768**0.5), dtype=torch.float16, device="cuda"
    )  # keeps the size of x
    launch(Plan(3, 3, 4), torch.empty_like(x), x, weight, scale, None)
    apart = chain(overlap=False)
    assert bool(apart.isfinite().all()) and float(apart.float().std()) > 0.1
    assert torch.equal(chain(overlap=True), apart)


@pytest.mark.gpu
def test_memory_is_accessed_within_bounds() -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("NOT TESTED: no compute-sanitizer in PATH")
    program = (
        "import torch\n"
        "from tests.kernels.test_int8_gemv import case, int8_linear\n"
        "for m, n, k in ((1, 7, 48), (8, 771, 784), (3, 17000, 1040)):\n"
        "    int8_linear(*case(m, n, k, torch.float16, 'cuda'))\n"
        "torch.cuda.synchronize()\n"
    )
    uncached = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # each tensor has bounds of its own
    for tool in ("memcheck", "racecheck"):
        line = [sanitizer, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c", program]
        done = subprocess.run(line, capture_output=True, text=True, cwd=build.KERNELS.parent, env=uncached)
        assert done.returncode == 0, done.stdout + done.stderr
