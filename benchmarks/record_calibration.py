"""`python -m benchmarks.record_calibration`: run benchmarks/calibration.cu on this GPU and compare.

The recording and its truth go to outputs/calibration/, the table to results/calibration.md. Exit codes: those
of `python -m benchmarks.calibrate`, and 4 where nvcc or nsys is missing or fails, 7 where the program does.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from analysis.trim import trim
from benchmarks import calibrate
from harness import environment, nsys, tools
from harness.environment import PROJECT
from harness.errors import ExitCode, UserError

SOURCE = Path(__file__).with_name("calibration.cu")
OUTPUTS = PROJECT / "outputs" / "calibration"
PAGE = PROJECT / "results" / "calibration.md"
_NVCC_HINT = (
    "install the CUDA toolkit (https://developer.nvidia.com/cuda-downloads), or set NVCC=/path/to/nvcc"
)


def compile_program(program: Path) -> None:
    """nvcc for the GPU of this machine; UserError (MACHINE) without nvcc, or with what it said."""
    nvcc = tools.find("nvcc", ("/usr/local/cuda*/bin/nvcc",))
    if nvcc is None:
        raise UserError(
            "nvcc (the CUDA compiler) was not found on this machine", _NVCC_HINT, ExitCode.MACHINE
        )
    command = [nvcc, "-arch=native", "-O2", "-o", program, SOURCE]
    tools.ask(command, f"could not compile {SOURCE.name}", _NVCC_HINT, patience_s=None)


def record(folder: Path) -> tuple[Path, Path]:
    """Trace and truth of a run of the program, in `folder`. UserError if a tool or the program fails."""
    found = nsys.require()
    program, truth, stem = folder / "calibration", folder / "truth.csv", folder / "trace"
    compile_program(program)
    # An earlier run's must not pass for this one's.
    stem.with_suffix(".nsys-rep").unlink(missing_ok=True)
    command = nsys.profile_command(found, [str(program), str(truth)], stem, window=False)
    if status := subprocess.run(command).returncode:
        raise UserError(f"the calibration program ended with {status} under nsys", "", ExitCode.CHILD)
    return nsys.finish(found, stem), truth


def keep(trace: Path, truth: Path, stem: Path) -> None:
    """`<stem>.sqlite.xz` and `<stem>.csv`: a recording for the tests, without what names the machine."""
    trim(trace, Path(f"{stem}.sqlite.xz"))
    shutil.copyfile(truth, f"{stem}.csv")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.record_calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--markdown", type=Path, default=PAGE, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="STEM", help="also write STEM.sqlite.xz and STEM.csv")
    arguments = parser.parse_args(argv)
    try:
        if environment.gpu() is None:
            raise UserError(
                "the calibration is about a GPU, and the NVIDIA driver sees none",
                "python -m harness.doctor",
                ExitCode.MACHINE,
            )
        arguments.outputs.mkdir(parents=True, exist_ok=True)
        trace, truth = record(arguments.outputs)
        if arguments.keep:
            keep(trace, truth, arguments.keep)
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(UserError(f"{error.filename} can't be written: {error.strerror}").report(), file=sys.stderr)
        return ExitCode.STORAGE
    return calibrate.main([str(trace), str(truth), "--markdown", str(arguments.markdown)])


if __name__ == "__main__":
    sys.exit(main())
