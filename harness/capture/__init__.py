"""Capture backends: one class each, in a module of its own."""

from __future__ import annotations

from harness.capture.base import Capture
from harness.capture.kineto import KinetoCapture
from harness.capture.none import NoCapture
from harness.capture.nsys import NsysCapture
from harness.errors import UserError

__all__ = ["Capture", "capture_for"]

BACKENDS: dict[str, type[Capture]] = {"nsys": NsysCapture, "kineto": KinetoCapture, "none": NoCapture}


def capture_for(name: str, device: str) -> Capture:
    """The backend `name`; `auto` is nsys where a working one is found, else kineto."""
    if name != "auto":
        return BACKENDS[name]()
    nsys = NsysCapture()
    try:
        nsys.check(device)
    except UserError:
        return KinetoCapture()
    return nsys
