"""Train the bundled checkpoint: python -m experiments.train [--recipe smoke] [--minutes 9]"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.bundled import CHECKPOINT
from harness.errors import ExitCode, UserError

NOT_FINISHED = 75  # sysexits.h: temporary failure, try again


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not trained yet; exit code 75 if --minutes were over first (the next call goes on)."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.train",
        description="Synthesise speech, train the bundled checkpoint and its draft on it, write both.",
        epilog="A call goes on where the last one stopped. Exit code 75: --minutes are over, call again.",
    )
    parser.add_argument("--recipe", choices=("bundled", "smoke"), default="bundled")
    parser.add_argument("--work", type=Path, default=Path("outputs/train"), help="state and curves")
    parser.add_argument(
        "--out", type=Path, help="the checkpoint; default: the bundled one's folder, or one in --work"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so long, state saved")
    parser.add_argument("--device", choices=("cuda", "cpu"), default=None)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    own = CHECKPOINT if options.recipe == "bundled" else options.work / options.recipe / "out"
    out = options.out or own
    try:
        from experiments.train.pieces import train

        _check_device(options.device, options.recipe)
        finished = train(
            options.recipe,
            options.work / options.recipe,
            out,
            began + 60 * options.minutes,
            options.device,
        )
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return int(error.exit_code)
    except OSError as error:
        print(f"error: {error}\n  try: other folders for --work and --out", file=sys.stderr)
        return int(ExitCode.STORAGE)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last saved state", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    if not finished:
        print(f"stopped after {options.minutes:g} minutes; the same command goes on")
        return NOT_FINISHED
    print(json.dumps({"checkpoint": str(out), "minutes": round((time.monotonic() - began) / 60, 1)}))
    return 0


def _check_device(device: str | None, recipe: str) -> None:
    import torch

    if torch.cuda.is_available() or device == "cpu" or (device is None and recipe == "smoke"):
        return
    raise UserError(
        "there is no GPU that torch can use, and without one this takes days",
        "--recipe smoke (seconds), or --device cpu if you mean it",
        ExitCode.MACHINE,
    )


if __name__ == "__main__":
    sys.exit(main())
