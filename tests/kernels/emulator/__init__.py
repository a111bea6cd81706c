"""The CUDA kernels on a CPU: their sources, compiled by g++ against stand-ins for CUDA's built-ins and PTX.

What it can tell: a wrong index, lane, rank or byte count; an access outside of a tensor or misaligned;
lanes at different collectives; a message that comes too early, too late or is never awaited; a deadlock.
What it can't: whether a fence is missing, since a write is seen by everybody at once; nor anything of time.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from kernels import build
from tests.kernels.emulator.compiling import Edits, library
from tests.kernels.emulator.guarded import Guarded


class Fault(AssertionError):
    """What a kernel did that a GPU punishes, often silently."""


class Emulator:
    """Stands in for `build.library` and launches for tensors of the CPU."""

    def __init__(self, edits: Edits) -> None:
        self._edits = edits
        self._calls = 0
        self._used: ctypes.CDLL | None = None

    def library(
        self, source: Path, defines: Mapping[str, int | str] | None = None, least: int = 80
    ) -> ctypes.CDLL:
        self._used = library(source, tuple(sorted((defines or {}).items())), self._edits)
        self._used.emulator_prepare(self._calls % 2)
        return self._used

    def run(self, launch: Callable[..., None], written: Sequence[str], **arguments: Any) -> None:
        """`launch` with copies of the tensors that end, or begin, at memory that isn't there. Those that
        aren't `written` can't be. In every second call threads run in the opposite order. Raises Fault."""
        self._calls += 1
        order = self._calls % 2
        tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
        copies = {name: Guarded(tensor, order == 1, name in written) for name, tensor in tensors.items()}
        try:
            if self._used is not None:
                self._used.emulator_prepare(order)
            launch(**arguments | {name: copy.tensor for name, copy in copies.items()})
            for name in written:
                tensors[name].copy_(copies[name].tensor)
            spilled = [name for name, copy in copies.items() if copy.spilled()]
            if spilled:
                raise Fault(f"written beside {spilled[0]}")
        except RuntimeError as error:
            raise self._fault(copies) or error from None
        finally:
            for copy in copies.values():
                copy.free()

    def _fault(self, copies: Mapping[str, Guarded]) -> Fault | None:
        if self._used is None or not (problem := self._used.emulator_problem().decode()):
            return None
        if address := self._used.emulator_fault(0):
            places = [f"{place} {name}" for name, copy in copies.items() if (place := copy.place(address))]
            line = self._line(self._used.emulator_fault(1))
            problem += f": {places[0] if places else hex(address)}; {line}"
        return Fault(problem)

    def _line(self, code: int) -> str:
        """The line of the source that has the instruction, if binutils are there."""
        assert self._used is not None
        line = ["addr2line", "-e", self._used._name, hex(code)]
        try:
            return subprocess.run(line, capture_output=True, text=True).stdout.strip().rsplit("/", 1)[-1]
        except OSError:
            return f"instruction {code:#x}"


@contextmanager
def emulated(*ops: Any, multiprocessors: int = 132, edits: Edits = ()) -> Iterator[Emulator]:
    """Within it the ops do with tensors of the CPU what they else do on CUDA, in the emulator."""
    emulator = Emulator(edits)
    device = {
        "device": lambda device: nullcontext(),
        "current_stream": lambda device=None: SimpleNamespace(cuda_stream=0),
        "get_device_properties": lambda device: SimpleNamespace(multi_processor_count=multiprocessors),
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **device))
        stack.enter_context(mock.patch.object(build, "library", emulator.library))
        stack.enter_context(mock.patch.object(build, "obstacle", lambda source, least=build.LEAST: None))
        for op in ops:
            by_device = op._backend_fns  # None: all that have none of their own
            replaced = "cpu" if "cpu" in by_device else None
            run = _as_op(emulator, op, by_device["cuda"])
            stack.enter_context(mock.patch.dict(by_device, {replaced: run}))
        yield emulator


def _as_op(emulator: Emulator, op: Any, launch: Callable[..., None]) -> Callable[..., None]:
    parameters = op._opoverload._schema.arguments
    written = [p.name for p in parameters if p.alias_info is not None and p.alias_info.is_write]

    def run(*arguments: Any, **named: Any) -> None:
        given = dict(zip((p.name for p in parameters), arguments, strict=False))
        emulator.run(launch, written, **given, **named)

    return run
