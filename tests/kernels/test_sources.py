"""The CUDA sources compile, cleanly, also where there is no GPU to run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.errors import UserError
from kernels import accept, build, decoder_step, fused_topk

STRICT = ("--compiler-options=-Wall,-Wextra", "-Xptxas=-v,-warn-spills", "--Werror=all-warnings")
# Of a checkpoint like Whisper-small; FFN is the host's matter.
SMALL = {"D_MODEL": 768, "HEADS": 12, "FFN": 3072, "CLUSTER": 8, "MLP_UNITS": 24, "VOCAB_STAGES": 2}
SMALL |= {"SELF_LENGTH": 448, "CROSS_LENGTH": 1500}
# Source, defines, and how many kernels it has.
SOURCES = [
    (fused_topk.SOURCE, {}, 3),  # one for every float type
    (accept.SOURCE, {}, 1),
    (decoder_step.SOURCE, SMALL | {"QUERIES": 1, "WEIGHT_BYTES": 2}, 4),
    (decoder_step.SOURCE, SMALL | {"QUERIES": 8, "WEIGHT_BYTES": 2}, 4),
    (decoder_step.SOURCE, SMALL | {"QUERIES": 4, "WEIGHT_BYTES": 1}, 4),
    (build.KERNELS / "while_graph.cu", {}, 1),
]


@pytest.mark.parametrize("source, defines, entries", SOURCES, ids=lambda value: getattr(value, "name", None))
def test_nvcc_has_nothing_to_say_and_spills_no_registers(
    source: Path, defines: dict[str, int], entries: int, tmp_path: Path
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
