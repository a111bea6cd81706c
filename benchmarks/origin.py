"""On what, when and by which code figures were measured."""

from __future__ import annotations

from datetime import UTC, datetime

import torch

from harness import environment
from harness.record import code_label


def origin() -> dict[str, str]:
    """machine, torch, date and commit, as texts. Needs a GPU."""
    code = environment.git(environment.PROJECT)
    return {
        "machine": torch.cuda.get_device_name(),
        "torch": str(torch.__version__),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": code_label(code["commit"], code["dirty"]),
    }
