"""The CUDA sources compile, cleanly, also where there is no GPU to run them."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

from harness.errors import UserError
from kernels import accept, build, decode_attention, decoder_step, fused_topk, int8_gemv, while_graph

STRICT = ("--compiler-options=-Wall,-Wextra", "-Xptxas=-v,-warn-spills", "--Werror=all-warnings")
# Of a checkpoint like Whisper-small.
SMALL = {"D_MODEL": 768, "HEADS": 12, "CLUSTER": 8, "MLP_UNITS": 24, "VOCAB_STAGES": 2}
SMALL |= {"SELF_LENGTH": 448, "CROSS_LENGTH": 1500}
STEP = ["decoder_step", "decoder_step_prepare", "decoder_step_size"]
LOOP = ["while_graph_create", "while_graph_launch", "while_graph_destroy"]
LARGE = SMALL | {"D_MODEL": 1280, "HEADS": 20}
# Source, defines, how many kernels it has, and what is called from Python.
SOURCES = [
    (fused_topk.SOURCE, {}, 6, ["fused_topk"]),  # for every float type, k = 1 and others
    (accept.SOURCE, {}, 1, ["accept_drafts"]),
    (decoder_step.SOURCE, SMALL | {"QUERIES": 1, "WEIGHT_BYTES": 2}, 4, STEP),
    pytest.param(
        decoder_step.SOURCE, SMALL | {"QUERIES": 8, "WEIGHT_BYTES": 2}, 4, STEP, marks=pytest.mark.slow
    ),
    pytest.param(
        decoder_step.SOURCE, SMALL | {"QUERIES": 4, "WEIGHT_BYTES": 1}, 4, STEP, marks=pytest.mark.slow
    ),
    pytest.param(
        decoder_step.SOURCE, LARGE | {"QUERIES": 8, "WEIGHT_BYTES": 2}, 4, STEP, marks=pytest.mark.slow
    ),
    (while_graph.SOURCE, {}, 1, LOOP),
    (decode_attention.SOURCE, {}, 4, ["decode_attention"]),  # for 1, 2, 4 and 8 queries
    (int8_gemv.SOURCE, {}, 6, ["int8_gemv"]),  # for every float type and number of loads
]


def test_no_source_is_left_out() -> None:
    listed = {getattr(case, "values", case)[0] for case in SOURCES}
    assert listed == set(build.KERNELS.glob("*.cu"))


@pytest.mark.parametrize(
    "source, defines, entries, launchers", SOURCES, ids=lambda value: getattr(value, "name", None)
)
def test_nvcc_has_nothing_to_say_and_spills_no_registers(
    source: Path, defines: dict[str, int], entries: int, launchers: list[str], tmp_path: Path
) -> None:
    try:
        line = build.command(source, tmp_path / "kernel.so", defines, "90a")
    except UserError as error:
        pytest.skip(f"NOT TESTED: {error}")
    done = subprocess.run([*line, *STRICT], capture_output=True, text=True, timeout=build.TIMEOUT_S)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert len(re.findall("Compiling entry function", said)) == entries
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert spilled and set(spilled) == {("0", "0", "0")}
    library = ctypes.CDLL(str(tmp_path / "kernel.so"))
    assert all(_exported(library, name) for name in launchers)


def _exported(library: ctypes.CDLL, name: str) -> bool:
    """By the library itself: a lookup goes on in what it is linked with, such as libc."""
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if library._name in line]
    ends = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    return any(first <= (address or 0) < last for first, last in ends)
