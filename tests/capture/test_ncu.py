"""capture=ncu: the exact commands, the window around one decode step, and an ncu that measures nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from harness import child, dry_run, environment, ncu, plan, run, usage
from harness.capture import capture_for
from harness.capture import ncu as backend
from harness.capture.kineto import KinetoCapture
from harness.capture.ncu import NcuCapture, OneStep, StepDone
from harness.errors import ExitCode, UserError
from harness.phases import DECODE_STEP, ITER, HostTimer, NvtxAnnotator, PhaseClock
from tests.harness.cli import ROOT
from tests.harness.test_plan import planned

CHILD = ["python", "-m", "harness.child", "replay", "/runs/a"]
TABLE = '"ID","Process ID","Kernel Name","gpu__time_duration.sum"\n"","","","ns"\n'
ROWS = TABLE + '"0","7","gemm<float>(int, int)","3,100"\n"1","7","softmax","900"\n'
DENIED = """\
==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters on \
the target device 0. For instructions on enabling permissions see https://developer.nvidia.com/ERR_NVGPUCTRPERM
==WARNING== No kernels were profiled.
"""
BUSY = """\
==PROF== Connected to process 7
==ERROR== Profiling failed because a driver resource was unavailable.
"""

FAKE_NCU = """\
#!/bin/sh
[ "$1" = --version ] && {{ echo "Version 2025.3.1.0 (build 1) (public-release)"; exit; }}
while [ "$1" != --log-file ]; do shift; done
cat > "$2" <<'TEXT'
{csv}TEXT
shift 2
{run}
"""


@pytest.fixture
def fake_ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs an ncu that writes `csv` to its log file and runs the child."""

    def install(csv: str = ROWS, run: str = '"$@"') -> Path:
        path = tmp_path / "nsight compute" / "ncu"
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE_NCU.format(csv=csv, run=run))
        path.chmod(0o755)
        monkeypatch.setenv("NCU", str(path))
        return path

    return install


def test_the_exact_command_line(fake_ncu: Callable[..., Path]) -> None:
    found = fake_ncu()
    command = NcuCapture(capture_for("kineto", "cuda")).replay_command(CHILD, Path("/runs/a%b"))
    at = command.index("--metrics")
    assert command[:at] == [
        str(found),
        *("--profile-from-start", "off"),
        *("--nvtx", "--nvtx-include", "harness@decode.step/"),
        *("--graph-profiling", "node"),
        *("--clock-control", "none"),
        *("--cache-control", "all"),
    ]
    raw_page = ["--csv", "--page", "raw", "--print-units", "base"]
    assert command[at + 2 :] == [*raw_page, "--log-file", "/runs/a%%b/ncu.csv", *CHILD]
    metrics = command[at + 1].split(",")
    assert {"gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum"} <= set(metrics)
    stalled = "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio"
    assert stalled in metrics and len(metrics) == len(set(metrics))


def test_the_traced_child_is_that_of_the_timeline(fake_nsys: Callable[..., Path]) -> None:
    child = ["python", "-m", "harness.child", "trace", "/runs/a"]
    fake_nsys(importer=None)
    command = capture_for("ncu", "cuda").command(child, Path("/runs/a"), "cuda")
    assert command == [*child, "--capture", "kineto"]
    found = fake_nsys()
    command = capture_for("ncu", "cuda").command(child, Path("/runs/a"), "cuda")
    assert command[0] == str(found) and command[-7:] == [*child, "--capture", "nsys"]


def test_installations_are_searched_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCU", raising=False)
    monkeypatch.setenv("PATH", "")
    assert ncu.find(tmp_path) is None
    for version in ("2025.3.1", "2025.10.0"):
        place = tmp_path / "opt/nvidia/nsight-compute" / version / "ncu"
        place.parent.mkdir(parents=True)
        place.touch(0o755)
    assert ncu.find(tmp_path) == tmp_path / "opt/nvidia/nsight-compute/2025.10.0/ncu"


def test_no_ncu_and_no_gpu(fake_nsys: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nsys()
    monkeypatch.setenv("NCU", "/nowhere/ncu")
    with pytest.raises(UserError, match="NCU=/nowhere/ncu is not a program") as caught:
        capture_for("ncu", "cuda").check("cuda")
    assert caught.value.exit_code == ExitCode.MACHINE
    with pytest.raises(UserError, match="this run is on the cpu"):
        capture_for("ncu", "cpu").check("cpu")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (DENIED, "no permission to read the GPU's performance counters", "NVreg_Restrict"),
        (BUSY, "a driver resource was unavailable", "see "),
        (TABLE, "after 0 kernels: it says nothing", "see "),
        (ROWS + BUSY, "after 2 kernels: Profiling failed because", "see "),
        (None, "says nothing", "see "),
    ],
)
def test_an_ncu_that_measured_nothing_is_quoted(
    tmp_path: Path, text: str | None, message: str, hint: str
) -> None:
    if text is not None:
        (tmp_path / "ncu.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        NcuCapture(capture_for("kineto", "cuda")).finish_replay(tmp_path)
    assert caught.value.exit_code == ExitCode.MACHINE and hint in caught.value.hint


def test_messages_around_a_whole_table_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "ncu.csv").write_text(
        f"==WARNING== Note: Running with unmodified GPU clocks.\n{ROWS}==PROF== Disconnected\n"
    )
    assert NcuCapture(capture_for("kineto", "cuda")).finish_replay(tmp_path) == tmp_path / "ncu.csv"


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order, with the names of ranges between; there is no GPU here."""
    happened: list[str] = []

    class Cuda:
        synchronize = staticmethod(lambda: happened.append("synchronize"))

        class profiler:
            start = staticmethod(lambda: happened.append("start"))
            stop = staticmethod(lambda: happened.append("stop"))

    monkeypatch.setattr(backend, "_cuda", lambda: Cuda)
    monkeypatch.setattr(NvtxAnnotator, "push", lambda self, name, payload=None: happened.append(name))
    monkeypatch.setattr(NvtxAnnotator, "pop", lambda self: happened.append("pop"))
    return happened


def test_the_window_is_around_one_decode_step_and_ends_the_iteration(window: list[str]) -> None:
    annotator = OneStep(1)
    clock = PhaseClock(HostTimer(), annotator)
    with pytest.raises(StepDone), clock.phase(ITER):
        for _ in range(3):
            with clock.phase(DECODE_STEP):
                pass
    assert annotator.steps == 2
    profiled = ["synchronize", "start", DECODE_STEP, "pop", "synchronize", "stop"]
    assert window == [ITER, DECODE_STEP, "pop", *profiled, "pop"]


@pytest.mark.parametrize("step", [1, 8])
def test_the_replayed_child_profiles_one_step(
    window: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(child, "STEP", step)
    OmegaConf.save(planned("capture=none").config, tmp_path / "config.yaml")
    assert child.main(["replay", str(tmp_path)]) == 0
    found = json.loads((tmp_path / plan.REPLAYED_JSON).read_text())
    assert found["error"] is None and found["step"] == min(step, 2), "the workload has three"
    assert window.count("start") == window.count("stop") == 1
    begun_before = 1 if step == 1 else 3 + 2  # all three, and again up to the last
    assert window[: window.index("start")].count(DECODE_STEP) == begun_before


@pytest.mark.parametrize("scope", ["baseline", "cuda_graphs"])
def test_real_decoders_can_be_left_after_a_step(
    window: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    monkeypatch.setattr(child, "STEP", 2)
    usage.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        chosen = [f"+scope={scope}", "model=tiny_random", "audio=harbour", "device=cpu", "capture=none"]
        OmegaConf.save(compose("config", overrides=chosen), tmp_path / "config.yaml", resolve=True)
    assert child.main(["replay", str(tmp_path)]) == 0
    assert window[-1] == "pop" and window.count(DECODE_STEP) == 3 and window.count("stop") == 1


@pytest.fixture
def made(
    fake_nsys: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], plan.Plan]:
    """Plans of runs with capture=ncu, let through on this machine's CPU; the timeline is kineto's."""
    fake_nsys(importer=None)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(NcuCapture, "check", lambda self, device: None)
    return lambda: planned("capture=ncu", f"outputs={tmp_path / 'outputs'}")


@pytest.mark.parametrize("scope", ["single_launch", "optimized"])
def test_a_loop_that_is_one_launch_is_refused_before_anything_runs(
    fake_ncu: Callable[..., Path],
    fake_nsys: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scope: str,
) -> None:
    fake_ncu()
    fake_nsys(importer=None)
    monkeypatch.setattr(environment, "gpu", lambda: {"name": "NVIDIA H200"})
    monkeypatch.setattr(plan, "resolve_device", lambda wanted: "cuda")
    monkeypatch.setattr(KinetoCapture, "check", lambda self, device: None)
    usage.register_resolvers()

    def make(*overrides: str) -> plan.Plan:
        chosen = [f"+scope={scope}", "capture=ncu", f"outputs={tmp_path / 'outputs'}", *overrides]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return plan.make(compose("config", overrides=chosen))

    with pytest.raises(UserError, match="all steps of a window are one launch") as refused:
        make()
    assert refused.value.exit_code == ExitCode.USAGE and refused.value.hint.startswith("loop=host")
    assert make("loop=host").capture.name == "ncu"
    assert not (tmp_path / "outputs").exists()


WRITE_RESULT = """for run; do :; done; echo '{"error": null}' > "$run/replayed.json\""""


def test_a_run_has_a_timeline_and_its_kernels(
    fake_ncu: Callable[..., Path], made: Callable[[], plan.Plan], tmp_path: Path
) -> None:
    found = fake_ncu(run=WRITE_RESULT)
    record = run.execute(made(), ["test"], [], Console(quiet=True))
    assert record.status == "finished", record.error
    folder = tmp_path / "outputs" / record.id
    assert record.capture["backend"] == "ncu" and record.capture["kernels"] == "ncu.csv"
    assert record.capture["command"][-2:] == ["--capture", "kineto"]
    assert record.capture["replay_command"][0] == str(found)
    assert {"trace.sqlite", "traced.json", "ncu.csv"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("csv", "run_child", "why", "kernels"),
    [
        (
            DENIED,
            WRITE_RESULT,
            "none of the kernels of a step could be measured: ncu has no",
            None,
        ),
        (DENIED, "exit 1", "none of the kernels of a step could be measured: ncu has no", None),
        (ROWS + BUSY, "exit 1", "2 of the kernels of a step could be measured: ncu failed after", "ncu.csv"),
    ],
)
def test_a_run_that_ncu_can_not_measure_has_its_trace_and_says_why(
    fake_ncu: Callable[..., Path],
    made: Callable[[], plan.Plan],
    tmp_path: Path,
    csv: str,
    run_child: str,
    why: str,
    kernels: str | None,
) -> None:
    fake_ncu(csv=csv, run=run_child)
    record = run.execute(made(), ["test"], [], Console(quiet=True))
    assert record.status == "finished", record.error
    assert record.capture["kernels"] == kernels and record.capture["trace"] == "trace.sqlite"
    said = (tmp_path / "outputs" / record.id / "report.txt").read_text()
    assert f"note: {why}" in " ".join(said.split())


def test_dry_run_shows_all_three_commands(
    fake_ncu: Callable[..., Path], made: Callable[[], plan.Plan], tmp_path: Path
) -> None:
    found = fake_ncu()
    console = Console(width=120, record=True, file=io.StringIO())
    dry_run.show_commands(made(), console)
    said = console.export_text()
    for part in ("harness.child measure", "harness.child trace", f"'{found}' --profile-from-start off"):
        assert part in said
    assert not (tmp_path / "outputs").exists()
