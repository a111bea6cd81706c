"""Tensors beside memory that isn't there."""

from __future__ import annotations

import ctypes
import mmap

import torch

_PAGE = mmap.PAGESIZE
_NONE, _READ = 0, 1  # PROT_NONE, PROT_READ
_GARBAGE = 0x78  # large in every float type, and no flag of a token
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Guarded:
    """A copy of a tensor, strides and alignment to 16 bytes included, that ends at a page which can't be
    read, or begins behind one. Up to 15 bytes between are garbage. If not `writable` it is read-only.
    """

    def __init__(self, original: torch.Tensor, at_end: bool, writable: bool) -> None:
        steps = zip(original.shape, original.stride(), strict=True)
        extent = 1 + sum((size - 1) * stride for size, stride in steps) if original.numel() else 0
        self.bytes = extent * original.element_size()
        inner = (self.bytes + 15 + _PAGE) // _PAGE * _PAGE
        self._mapped = inner + 2 * _PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._base = _LIBC.mmap(None, self._mapped, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        begin, end = self._base + _PAGE, self._base + _PAGE + inner
        alignment = original.data_ptr() % 16
        slack = (end - self.bytes - alignment) % 16 if at_end else alignment
        self.address = end - self.bytes - slack if at_end else begin + slack
        self._slack = (ctypes.c_uint8 * slack).from_address(end - slack if at_end else begin)
        ctypes.memset(begin, _GARBAGE, inner)
        ctypes.memmove(self.address, original.data_ptr(), self.bytes)
        closed = [(self._base, _PAGE, _NONE), (end, _PAGE, _NONE)]
        for address, size, allowed in closed if writable else [*closed, (begin, inner, _READ)]:
            if _LIBC.mprotect(address, size, allowed):
                raise OSError(ctypes.get_errno(), "mprotect failed")
        memory = (ctypes.c_uint8 * max(self.bytes, 1)).from_address(self.address)
        whole = torch.frombuffer(memory, dtype=torch.uint8)[: self.bytes].view(original.dtype)
        self.tensor = whole.as_strided(original.shape, original.stride())

    def spilled(self) -> bool:
        """Whether something was written beside it."""
        return any(byte != _GARBAGE for byte in self._slack)

    def place(self, address: int) -> str | None:
        """Where an address lies, seen from the tensor: "4 bytes behind"; None: far away."""
        if not self._base <= address < self._base + self._mapped:
            return None
        if address < self.address:
            return f"{self.address - address} bytes before"
        behind = address - self.address - self.bytes
        return f"{behind} bytes behind the end of" if behind >= 0 else "a write to"

    def free(self) -> None:
        """The tensor must not be used any more."""
        _LIBC.munmap(self._base, self._mapped)
