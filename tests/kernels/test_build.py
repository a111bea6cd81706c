"""A compiled kernel is used only for the sources that it was compiled from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from harness.errors import UserError
from kernels import build, decoder_step

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
