"""A compiled kernel is used only for the sources that it was compiled from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness import tools
from harness.errors import ExitCode, UserError
from kernels import accept, build, decoder_step

SOURCES = sorted(build.KERNELS.glob("*.cu"))


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the kernels, to change files in; no nvcc is needed."""
    folder = tmp_path / "kernels"
    shutil.copytree(build.KERNELS, folder)
    monkeypatch.setattr(build, "KERNELS", folder)
    monkeypatch.setattr(build, "_nvcc", lambda: "nvcc")
    monkeypatch.setattr(build, "_version", lambda nvcc: "13.0")
    return folder


@pytest.mark.parametrize("changed", ["decoder_step.cu", "device.cuh", "decoder_step/layout.cuh"])
def test_a_changed_source_or_header_means_another_library(copied: Path, changed: str) -> None:
    def key() -> str:
        return build._key(copied / decoder_step.SOURCE.name, (("QUERIES", 1),), "90a")

    before = key()
    assert key() == before
    with (copied / changed).open("a") as file:
        file.write("// changed\n")
    assert key() != before


@pytest.mark.parametrize("source", [*SOURCES, *build.headers()], ids=lambda path: path.name)
def test_every_header_that_is_included_counts(source: Path) -> None:
    headers = [header.resolve() for header in build.headers()]
    for name in re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE):
        assert (source.parent / name).resolve() in headers


@pytest.mark.parametrize(
    ("architecture", "least", "said"),
    [
        ("90a", 80, "NVCC=/nowhere/nvcc is not a program"),
        ("75", 80, "accept.cu needs a GPU of compute capability 8.0 or later; this one has 7.5"),
        ("80", 90, "9.0 or later; this one has 8.0"),
    ],
)
def test_what_is_in_the_way_of_a_kernel_is_known_before_it_is_asked_for(
    architecture: str, least: int, said: str, no_nvcc: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_architecture", lambda: architecture)
    assert said in str(build.obstacle(accept.SOURCE, least))
    with pytest.raises(UserError) as refused:
        build.library(accept.SOURCE, least=least)
    assert said in str(refused.value) and refused.value.exit_code == ExitCode.MACHINE


def test_nothing_is_in_the_way_where_there_is_a_compiler(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_architecture", lambda: "80")
    monkeypatch.setattr(build, "_no_compiler", build._no_compiler.__wrapped__)
    assert build.obstacle(accept.SOURCE) is None


def test_without_nvcc_the_error_says_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda *_: None)
    with pytest.raises(UserError, match="no nvcc was found") as refused:
        build._nvcc.__wrapped__()
    assert "cuda_graphs" in refused.value.hint and "quantize=int8" in refused.value.hint


@pytest.mark.parametrize(("prints", "said"), [("echo wrong >&2; exit 2", "wrong"), ("exit 137", "137")])
def test_a_compiler_that_fails_is_an_error(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, said: str
) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text(f"#!/bin/sh\n{prints}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(build, "_nvcc", lambda: str(compiler))
    with pytest.raises(UserError, match=said):
        build._compile(copied / "accept.cu", tmp_path / "kept" / "accept.so", {}, "90a")
