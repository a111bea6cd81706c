"""The CUDA sources compile, cleanly, also where there is no GPU to run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.errors import UserError
from kernels import accept, build, fused_topk

STRICT = ("--compiler-options=-Wall,-Wextra", "-Xptxas=-v,-warn-spills", "--Werror=all-warnings")
ENTRIES = {fused_topk.SOURCE: 3, accept.SOURCE: 1}  # kernels in each: one for every float type


@pytest.mark.parametrize("source", ENTRIES, ids=lambda source: source.name)
def test_nvcc_has_nothing_to_say_and_spills_no_registers(source: Path, tmp_path: Path) -> None:
    try:
        line = build.command(source, tmp_path / "kernel.so", {}, "90a")
    except UserError as error:
        pytest.skip(f"NOT TESTED: {error}")
    done = subprocess.run([*line, *STRICT], capture_output=True, text=True, timeout=build.TIMEOUT_S)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert len(re.findall("Compiling entry function", said)) == ENTRIES[source]
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert spilled and set(spilled) == {("0", "0", "0")}
