"""Nsight Systems on this machine: where it is, whether it can finish a recording, and the calls to it.

Installations often lack one half: Debian's package and the copy inside Nsight Compute record, but can't find
their own importer and leave an unfinished `.qdstrm`. `finish` completes such a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import tools
from harness.errors import ExitCode, UserError

INSTALL_HINT = (
    "install Nsight Systems (https://developer.nvidia.com/nsight-systems; on Debian and Ubuntu the package "
    "nsight-systems), or set NSYS=/path/to/nsys, or use capture=kineto"
)
IMPORTER = "QdstrmImporter"
# Said by nsys 2022.4 when it can't reach its own daemon, now and then on a busy machine: it started nothing.
UNREACHABLE = "Local Endpoint is not available"

# Below PATH in this order, the newest version of each first.
_INSTALLATIONS = (
    "/opt/nvidia/nsight-systems/*/bin/nsys",
    "/opt/nvidia/nsight-systems/*/target-linux-x64/nsys",
    "/opt/nvidia/nsight-systems-cli/*/target-linux-x64/nsys",
    "/opt/nvidia/nsight-compute/*/host/target-linux-x64/nsys",
    "/usr/lib/nsight-systems/bin/nsys",
)
_IMPORTER_FOLDERS = ("host-linux-x64", "linux-desktop-*", "host-linux-*")

# No CPU sampling: it turned 2 s of work into a 2 GB recording.
_RECORD = ("--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none")
_WINDOW = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")


def find(root: Path = Path("/")) -> Path | None:
    """The nsys to use: $NSYS (UserError if it isn't a program), else PATH, else known folders in `root`."""
    return tools.find("nsys", _INSTALLATIONS, root)


def require() -> Path:
    """`find`, or UserError with what to install."""
    if nsys := find():
        return nsys
    raise UserError("nsys (Nsight Systems) was not found on this machine", INSTALL_HINT, ExitCode.MACHINE)


def version(nsys: Path) -> str:
    """The version, like "2025.3.1.90"; UserError if nsys doesn't start."""
    return tools.version(nsys, INSTALL_HINT)


def importer(nsys: Path) -> Path:
    """The program that finishes a `.qdstrm`, tried out; UserError naming what is missing."""
    target = nsys.resolve().parent
    # Debian: the target folder is in /usr/lib/<architecture>/nsight-systems, the host folder is not.
    roots = [target.parent, *(parent / "nsight-systems" for parent in target.parents[2:3])]
    for root in roots:
        for folder in (match for pattern in _IMPORTER_FOLDERS for match in sorted(root.glob(pattern))):
            if (found := folder / IMPORTER).is_file():
                tools.ask([found, "--version"], "is nsys's importer, but does not start", INSTALL_HINT)
                return found
    folders = " or ".join(f"{root}/{_IMPORTER_FOLDERS[0]}" for root in roots)
    raise UserError(
        f"{nsys} can record, but has no importer to finish a recording with: no {IMPORTER} in {folders}",
        INSTALL_HINT,
        ExitCode.MACHINE,
    )


def profile_command(
    nsys: Path,
    program: Sequence[str],
    stem: Path,
    window: bool,
    extra: Sequence[str] = (),
    graphs: str = "node",
) -> list[str]:
    """The command line that records `program` into `<stem>.nsys-rep`, with `extra` options of nsys.

    `window`: record only between cudaProfilerStart and cudaProfilerStop. `graphs`: CUDA graphs by `node`, so
    that their kernels can be seen, or each `graph` as a whole. No `--` before the program: nsys 2022.4
    refuses it, and every version takes the first word that isn't an option for the program.
    """
    return [
        str(nsys),
        "profile",
        *_RECORD,
        f"--cuda-graph-trace={graphs}",
        *extra,
        "--force-overwrite=true",
        "--output",
        str(stem).replace("%", "%%"),  # nsys expands %p, %h and others
        *(_WINDOW if window else ()),
        *program,
    ]


def finish(nsys: Path, stem: Path) -> Path:
    """Import `<stem>.qdstrm` if nsys left one, export `<stem>.nsys-rep`, and return `<stem>.sqlite`.

    UserError (MACHINE) if nsys wrote nothing, or if its importer or exporter is missing or fails.
    """
    unfinished, report, export = (
        stem.with_name(stem.name + end) for end in (".qdstrm", ".nsys-rep", ".sqlite")
    )
    if not report.exists():
        if not unfinished.exists():
            raise UserError(
                f"nsys ended without writing a report ({report} is missing)",
                "python -m harness.doctor, which tests this nsys",
                ExitCode.MACHINE,
            )
        tools.ask(
            [importer(nsys), "-i", unfinished, "-o", report],
            "could not finish the recording",
            INSTALL_HINT,
            patience_s=None,
        )
        if not report.exists():
            raise UserError(f"nsys's importer wrote no {report}", INSTALL_HINT, ExitCode.MACHINE)
    unfinished.unlink(missing_ok=True)
    options = ("--type=sqlite", "--force-overwrite=true", "-o", str(export))
    tools.ask(
        [nsys, "export", *options, report], "could not export the recording", INSTALL_HINT, patience_s=None
    )
    if not export.exists():
        raise UserError(f"nsys export wrote no {export}", INSTALL_HINT, ExitCode.MACHINE)
    return export
