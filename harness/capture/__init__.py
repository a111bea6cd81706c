"""Capture backends: one class each, in a module of its own."""

from __future__ import annotations

from harness.capture.base import Capture
from harness.capture.kineto import KinetoCapture
from harness.capture.ncu import NcuCapture
from harness.capture.none import NoCapture
from harness.capture.nsys import NsysCapture
from harness.errors import UserError
from harness.gpu_metrics import OFF

__all__ = ["Capture", "capture_for"]


def capture_for(name: str, device: str, gpu_metrics: str | int = OFF, graphs: str = "node") -> Capture:
    """The backend `name`; `auto` is nsys where a working one is found, else kineto.

    gpu_metrics: `auto`, `off` or Hz, of the backends that can sample the GPU's counters. graphs: `node` or
    `graph`, how nsys records CUDA graphs.
    """
    if name == "auto":
        return _timeline(device, gpu_metrics, graphs)
    if name == "nsys":
        return NsysCapture(gpu_metrics, graphs)
    if name == "ncu":
        return NcuCapture(_timeline(device, gpu_metrics, graphs))
    return KinetoCapture(gpu_metrics) if name == "kineto" else NoCapture()


def _timeline(device: str, gpu_metrics: str | int, graphs: str) -> Capture:
    nsys = NsysCapture(gpu_metrics, graphs)
    try:
        nsys.check(device)
    except UserError:
        return KinetoCapture(gpu_metrics)
    return nsys
