"""GPU metrics: what nsys says it can sample, and the command line that follows from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import environment, gpu_metrics
from harness.capture import capture_for
from harness.capture.kineto import KinetoCapture
from harness.errors import ExitCode, UserError
from tests.capture.test_nsys import CHILD, RECORD, WINDOW
from tests.harness.test_plan import planned

FakeNsys = Callable[..., Path]
Command = Callable[..., "subprocess.CompletedProcess[str]"]

# As NVIDIA's user guide shows them, and as 2022.4 answers without a GPU.
LIST = """\
Possible --gpu-metrics-devices values are:
    1: Turing TU104 | GeForce RTX 2070 SUPER PCI[0000:65:00.0]
    all: Select all supported GPUs
    cuda-visible: Select GPUs that match CUDA_VISIBLE_DEVICES
    none: Disable GPU Metrics [Default]
Some GPUs are not supported:
    0: Volta GV100 | Quadro GV100 PCI[0000:17:00.0]
See the user guide: https://docs.nvidia.com/nsight-systems/UserGuide/index.html#gpu-metrics
"""
TWO = LIST.replace("    all:", "    2: Hopper GH100 | NVIDIA H200 PCI[0000:CA:00.0]\n    all:")
DENIED = """\
Possible --gpu-metrics-devices values are:
    none: Disable GPU Metrics [Default]
Some GPUs are not supported:
    0: Hopper GH100 | NVIDIA H200 PCI[0000:ca:00.0] - Insufficient privilege, see https://developer.nvidia.com/ERR_NVGPUCTRPERM
"""
NO_GPU = "Possible --gpu-metrics-device values are:\n\tNVIDIA GPUs not found, feature is not available\n"
REFUSED = """\
Illegal --gpu-metrics-devices argument: 0.
Insufficient privilege, see https://developer.nvidia.com/ERR_NVGPUCTRPERM.
"""


def answers(listed: str, option: str = "--gpu-metrics-devices") -> str:
    """Shell commands of an `nsys profile` that knows `option` and lists GPUs, or runs the program."""
    return (
        f'case "$2" in --help) echo "  {option}=" ;; '
        f"{option}=help) cat <<'TEXT'\n{listed}TEXT\n;; "
        '*) while [ "$1" != --output ]; do shift; done; shift 2; "$@" ;; esac'
    )


def gpu(monkeypatch: pytest.MonkeyPatch, pci: str | None) -> None:
    monkeypatch.setattr(environment, "gpu", lambda: {"pci_bus_id": pci} if pci else None)


@pytest.mark.parametrize(
    ("listed", "pci", "device", "why"),
    [
        (LIST, "00000000:65:00.0", "1", ""),
        (LIST, None, "1", ""),
        (TWO, "00000000:CA:00.0", "2", ""),
        (TWO, None, None, "not known which"),
        (TWO, "00000000:17:00.0", None, "not known which"),
        (DENIED, "00000000:CA:00.0", None, "no access to the GPU's counters"),
        (REFUSED, None, None, "no access to the GPU's counters"),
        (NO_GPU, None, None, "GPUs not found"),
        ("Possible values:\n 0: GeForce GTX 960 (not supported)\n 1: GeForce RTX 3080\n", None, "1", ""),
        ("", None, None, "none is listed"),
    ],
)
def test_the_gpu_in_use_is_found_in_the_list(
    listed: str, pci: str | None, device: str | None, why: str
) -> None:
    found = gpu_metrics.support("--gpu-metrics-devices", listed, pci)
    assert found.device == device and why in found.why and bool(found.why) == (device is None)


def test_only_a_lack_of_permission_is_answered_with_permissions() -> None:
    assert "NVreg_" in gpu_metrics.support("o", DENIED, None).advice
    assert "NVreg_" not in gpu_metrics.support("o", NO_GPU, None).advice


@pytest.mark.parametrize("option", ["--gpu-metrics-devices", "--gpu-metrics-device"])
@pytest.mark.parametrize(("wanted", "hz"), [("auto", 100_000), (20_000, 20_000)])
def test_the_exact_command_line(
    fake_nsys: FakeNsys, monkeypatch: pytest.MonkeyPatch, option: str, wanted: str | int, hz: int
) -> None:
    gpu(monkeypatch, "00000000:65:00.0")
    found = fake_nsys(profile=answers(LIST, option))
    capture = capture_for("nsys", "cuda", wanted)
    capture.check("cuda")
    sampling = [f"{option}=1", f"--gpu-metrics-frequency={hz}"]
    sampled = [*RECORD[:5], *sampling, *RECORD[5:-1], "/runs/a/metrics"]
    assert capture.sample_command(CHILD, Path("/runs/a"), "cuda") == [str(found), *sampled, *WINDOW, *CHILD]
    assert capture.command(CHILD, Path("/runs/a"), "cuda") == [str(found), *RECORD, *WINDOW, *CHILD]
    assert capture.notes("cuda") == []
    assert capture.sample_command(CHILD, Path("/runs/a"), "cpu") == []


def test_auto_goes_without_and_says_so(fake_nsys: FakeNsys, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, "00000000:CA:00.0")
    found = fake_nsys(profile=answers(DENIED))
    capture = capture_for("nsys", "cuda", "auto")
    capture.check("cuda")
    assert capture.command(CHILD, Path("/runs/a"), "cuda") == [str(found), *RECORD, *WINDOW, *CHILD]
    assert capture.sample_command(CHILD, Path("/runs/a"), "cuda") == []
    (note,) = capture.notes("cuda")
    assert "nothing is known about memory bandwidth" in note and "ERR_NVGPUCTRPERM" in note


def test_a_demanded_frequency_that_cannot_be_had_is_refused(
    fake_nsys: FakeNsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, "00000000:CA:00.0")
    fake_nsys(profile=answers(DENIED))
    with pytest.raises(UserError, match=r"trace\.gpu_metrics=5000, but nsys can't") as caught:
        capture_for("nsys", "cuda", 5000).check("cuda")
    assert caught.value.exit_code == ExitCode.MACHINE and "NVreg_" in caught.value.hint
    with pytest.raises(UserError, match="needs nsys"):
        KinetoCapture(5000).check("cuda")
    assert KinetoCapture("auto").notes("cuda") and not KinetoCapture("off").notes("cuda")


def test_off_asks_nsys_nothing(fake_nsys: FakeNsys, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, "00000000:65:00.0")
    found = fake_nsys(profile="exit 1")
    capture = capture_for("nsys", "cuda", "off")
    assert capture.command(CHILD, Path("/runs/a"), "cuda") == [str(found), *RECORD, *WINDOW, *CHILD]
    assert capture.notes("cuda") == []


@pytest.mark.parametrize("value", ["auto", "off", "false", "10", "200000"])
def test_the_setting_takes(value: str) -> None:
    assert planned(f"trace.gpu_metrics={value}").config.trace.iterations == 1


@pytest.mark.parametrize("value", ["true", "9", "200001", "1.5", "fast", "null"])
def test_the_setting_refuses(value: str) -> None:
    with pytest.raises(UserError, match=r"trace\.gpu_metrics=.* is not auto, off, or"):
        planned(f"trace.gpu_metrics={value}")


def test_a_refusal_at_the_start_of_a_recording_is_quoted() -> None:
    said = gpu_metrics.refusal(f"tracing\n{REFUSED}\nusage: nsys profile\n")
    assert said is not None and "argument: 0. Insufficient privilege" in str(said)
    assert "trace.gpu_metrics=off" in said.hint
    assert gpu_metrics.refusal("all is well") is None


def test_profiling_any_program_says_what_it_lacks(
    fake_nsys: FakeNsys, command: Command, tmp_path: Path
) -> None:
    fake_nsys(profile=answers(NO_GPU))
    program = ("--outputs", str(tmp_path), "--", "true")
    done = command("harness.profile", "--gpu-metrics", "auto", *program)
    assert "note: no GPU metrics" in done.stdout and "GPUs not found" in done.stdout
    done = command("harness.profile", "--gpu-metrics", "1000", *program)
    assert done.returncode == 4 and "trace.gpu_metrics=1000, but nsys can't" in done.stderr
    done = command("harness.profile", "--gpu-metrics", "often", *program)
    assert done.returncode == 2 and "often is not auto, off, or" in done.stderr


def test_a_run_that_nsys_refuses_says_why(fake_nsys: FakeNsys, command: Command, tmp_path: Path) -> None:
    fake_nsys(profile=f"printf '{REFUSED}'; exit 1")
    fake = ("--config-dir", str(Path(__file__).parents[1] / "harness" / "conf"), "+scope=fake_one")
    done = command("harness", *fake, "capture=nsys", "device=cpu", cwd=tmp_path)
    assert done.returncode == 4 and "refused to sample GPU metrics" in done.stderr
    (found,) = tmp_path.glob("outputs/*/*/run.json")
    record: dict[str, Any] = json.loads(found.read_text())
    assert record["status"] == "failed"
