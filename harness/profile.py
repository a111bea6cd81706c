"""`python -m harness.profile -- PROGRAM ARGS`: record any program with nsys and account for its GPU time."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from harness.errors import ExitCode, UserError, not_installed

try:
    from rich.console import Console
except ModuleNotFoundError as missing:
    not_installed(missing)

from harness import gpu_metrics, nsys, processes
from harness.capture.nsys import NsysCapture
from harness.environment import PROJECT
from harness.record import create_folder, drop_ballast

_EPILOG = """\
examples:
  python -m harness.profile -- python train.py --epochs 1
  python -m harness.profile --outputs /tmp/traces -- ./my_cuda_program
  python -m harness.profile --gpu-metrics 10000 -- ./my_cuda_program

The trace, its export and the figures go to <outputs>/profile/<utc>/.
exit codes: the program's own; 2 wrong usage · 4 nsys missing or failing · 5 outputs not writable ·
6 the trace can't be analysed · 130 interrupted
"""

# What nsys itself says between the program's lines.
_CHATTER = re.compile(
    rb"Generating '.*\.qdstrm'|Generated:|Collecting data\.\.\.|Processing events\.\.\."
    rb"|(\[\d+/\d+\] )?\[[=\d% ]*\].*"
    rb"|Importer error status: .*|Unable to retrieve the importer version: .*"
)


def main(argv: list[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    ours, program = _split(given)
    parser = argparse.ArgumentParser(
        prog="python -m harness.profile",
        usage="%(prog)s [--outputs DIR] [--cwd DIR] [--graphs node|graph] [--gpu-metrics auto|off|HZ] "
        "-- PROGRAM [ARGS ...]",
        description="Record any program with Nsight Systems and account for its GPU time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        default=PROJECT / "outputs",
        metavar="DIR",
        help="where recordings go, a relative one from --cwd (default: %(default)s)",
    )
    parser.add_argument(
        "--cwd", type=Path, default=Path.cwd(), metavar="DIR", help="where the program runs (default: here)"
    )
    parser.add_argument(
        "--graphs",
        choices=("node", "graph"),
        default="node",
        help="CUDA graphs kernel by kernel, or each as one piece: loops inside graphs are slowed down by the "
        "first (default: %(default)s)",
    )
    parser.add_argument(
        "--gpu-metrics",
        type=_sampling,
        default=gpu_metrics.OFF,
        metavar="auto|off|HZ",
        help="samples of the GPU's counters per second, 10 to 200000; auto: 100000 where nsys can, "
        "50 MB of trace a second. Memory traffic is told then, but sampling changes the gaps "
        "(default: %(default)s)",
    )
    arguments = parser.parse_args(ours)
    if not program:
        parser.error("no program given: put it after --")
    try:
        with processes.terminate_like_interrupt():
            capture = NsysCapture(arguments.gpu_metrics, arguments.graphs)
            cwd = arguments.cwd.absolute()
            return _profile(program, cwd, cwd / arguments.outputs, capture)
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


def _profile(program: list[str], cwd: Path, outputs: Path, capture: NsysCapture) -> int:
    _check_program(program[0], cwd)
    capture.check("cuda")
    for note in capture.notes("cuda"):
        print(f"note: {note}")
    found = nsys.require()
    stem = _new_folder(outputs) / "trace"
    status = _record(capture.whole_command(program, stem), cwd, stem)
    with Console(stderr=True).status("reading the recording"):
        trace = nsys.finish(found, stem)
    print(f"trace: {trace}")
    code = _account(trace)
    if status:
        print(f"{shlex.join(program)}: {processes.describe_exit(status)}", file=sys.stderr)
    return status or code


def _account(trace: Path) -> int:
    """Print the tables, draw the figures; the exit code of the analysis."""
    from analysis import Trace, TraceError
    from analysis.__main__ import main as analyse

    try:
        with Trace.open(trace) as opened:
            idle = opened.work.empty
    except TraceError as error:
        raise UserError(str(error), error.hint, ExitCode.TRACE) from None
    if idle:
        print(
            "note: the program did no GPU work that nsys could see, so there is no GPU time to account for."
        )
        return ExitCode.OK
    return analyse([str(trace), "--out", str(trace.with_name("plots"))])


def _sampling(text: str) -> str | int:
    """The value of --gpu-metrics."""
    value = gpu_metrics.setting(int(text) if text.isdecimal() else text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text} is not {gpu_metrics.VALID}")
    return value


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments and, after the first `--`, the program's command line."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _check_program(name: str, cwd: Path) -> None:
    if not cwd.is_dir():
        raise UserError(f"--cwd {cwd} is not a folder")
    if shutil.which(str(cwd / name) if "/" in name else name) is None:
        raise UserError(f"{name} is not a program that can be run", "a program on PATH, or a path to one")
    if name.startswith("-"):
        raise UserError(f"nsys would take {name} for an option of its own", f"./{name}")


def _new_folder(outputs: Path) -> Path:
    try:
        folder = outputs / create_folder(outputs, "profile")
    except OSError as error:
        raise UserError(
            f"cannot write to {outputs}: {error.strerror}",
            "--outputs DIR with a folder that is writable and has space",
            ExitCode.STORAGE,
        ) from None
    drop_ballast(folder)
    return folder


def _record(command: Sequence[str], cwd: Path, stem: Path) -> int:
    """Run nsys with the program; the program's exit code, which nsys passes on."""
    child = subprocess.Popen(
        processes.with_parent_death_signal(command),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    pipes = ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
    pumps = [threading.Thread(target=_pump, args=(pipe, to.buffer, stem), daemon=True) for pipe, to in pipes]
    try:
        for pump in pumps:
            pump.start()
        return child.wait()
    finally:
        processes.end(child)
        for pump in pumps:
            pump.join(processes.GRACE_S)


def _pump(pipe: IO[bytes], to: IO[bytes], stem: Path) -> None:
    """Pass on the program's lines. (To the program its output is a pipe under nsys in any case.)"""
    report = str(stem).encode()
    for line in pipe:
        said = line.rstrip().rsplit(b"\r", 1)[-1]
        if not _CHATTER.fullmatch(said) and not said.strip().startswith(report):
            to.write(line)
            to.flush()


if __name__ == "__main__":
    sys.exit(main())
