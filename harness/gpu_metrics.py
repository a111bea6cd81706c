"""Sampling of the GPU's hardware counters by nsys: whether this nsys can, of which GPU, and its options."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import environment, nsys, tools
from harness.errors import ExitCode, UserError

AUTO, OFF = "auto", "off"
AUTO_HZ = 100_000  # 10 us a sample: a decode kernel lasts 2 to 5 us
MIN_HZ, MAX_HZ = 10, 200_000  # what nsys takes
VALID = f"auto, off, or a whole number of Hz from {MIN_HZ} to {MAX_HZ}"
PERMISSION_HINT = (
    "put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into /etc/modprobe.d/profiling.conf and "
    "reboot, or run as root (in a container: --cap-add=SYS_ADMIN)"
)

_DENIED = "ERR_NVGPUCTRPERM"
_OPTIONS = ("--gpu-metrics-devices", "--gpu-metrics-device")  # since 2024, and before
_LISTED = re.compile(r"\s*(\d+): (.+)")
_REFUSED = re.compile(r"not supported|unsupported|not found", re.IGNORECASE)
_PCI = re.compile(r"PCI\[([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Support:
    """What nsys answered. option: how this version spells it; device: its number of the GPU in use, None if
    that can't be sampled, and then `why` says why.
    """

    option: str
    device: str | None
    why: str = ""

    @property
    def advice(self) -> str:
        """What to do where nothing can be sampled."""
        if _DENIED in self.why:
            return PERMISSION_HINT
        return "a GPU of the Turing generation or later and nsys 2021.2 or later; all else works without"

    def arguments(self, hz: int) -> list[str]:
        """Options of `nsys profile` that sample the device `hz` times a second."""
        return [f"{self.option}={self.device}", f"--gpu-metrics-frequency={hz}"]


def setting(value: object) -> str | int | None:
    """trace.gpu_metrics as `auto`, `off` or Hz; None if it is neither. A bare `off` in YAML means false."""
    if value is False:
        return OFF
    if value in (AUTO, OFF):
        return str(value)
    return value if type(value) is int and MIN_HZ <= value <= MAX_HZ else None


def probe(found: Path) -> Support:
    """Ask the nsys at `found` which GPUs it can sample; UserError (MACHINE) if it doesn't answer."""
    known = _said([found, "profile", "--help"])
    option = next((name for name in _OPTIONS if f"{name}=" in known), None)
    if option is None:
        return Support("", None, "this nsys knows no GPU metrics")
    gpu = environment.gpu()
    return support(option, _said([found, "profile", f"{option}=help"]), gpu["pci_bus_id"] if gpu else None)


def support(option: str, listed: str, pci: str | None) -> Support:
    """Read the list that `nsys profile <option>=help` prints; pci: address of the GPU in use, if known."""
    gpus: dict[str, str] = {}
    refused: list[str] = []
    below_heading = False  # "Some GPUs are not supported:"
    for line in listed.splitlines()[1:]:
        cannot = _REFUSED.search(line) is not None
        if cannot or below_heading:
            refused.append(line.strip())
            below_heading |= cannot and line.rstrip().endswith(":")
        elif match := _LISTED.match(line):
            gpus[match[1]] = match[2]
    ours = [number for number, name in gpus.items() if pci and _address(name) == _address(f"PCI[{pci}")]
    if ours or len(gpus) == 1:
        return Support(option, (ours or list(gpus))[0])
    if gpus:
        return Support(option, None, f"nsys offers {len(gpus)} GPUs, and it is not known which one is used")
    if _DENIED in listed or "privilege" in listed:
        return Support(option, None, f"this user has no access to the GPU's counters ({_DENIED})")
    return Support(option, None, f"nsys offers no GPU: {' '.join(refused[:2]) or 'none is listed'}")


def refusal(log: str) -> UserError | None:
    """What nsys said in `log` about metrics it could not sample after all, as something to tell the user."""
    if said := re.search(r"Illegal --gpu-metrics-devices? .*(\n.*\S.*)?", log):
        return UserError(
            f"nsys refused to sample GPU metrics: {' '.join(said[0].split())}",
            f"trace.gpu_metrics=off; or {PERMISSION_HINT}",
            ExitCode.MACHINE,
        )
    return None


def _address(text: str) -> tuple[int, ...] | None:
    """Domain, bus and device of "PCI[0000:65:00.0]"; NVML writes the domain with eight digits."""
    match = _PCI.search(text)
    return tuple(int(part, 16) for part in match.groups()) if match else None


def _said(question: list[str | Path]) -> str:
    """All that nsys answers, whatever it exits with: versions differ in how they end a list without a GPU."""
    try:
        done = subprocess.run(
            question,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            timeout=tools.PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"nsys does not answer: {error}", nsys.INSTALL_HINT, ExitCode.MACHINE) from None
    return done.stdout
