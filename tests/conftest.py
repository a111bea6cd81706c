"""What the tests of several rooms need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import nsys
from harness.errors import UserError


@pytest.fixture
def real_nsys() -> Path:
    """An nsys that works. Without one the test is skipped; with HARNESS_REQUIRE_NSYS (CI) it fails."""
    try:
        found = nsys.require()
        nsys.importer(found)
    except UserError as error:
        if os.environ.get("HARNESS_REQUIRE_NSYS"):
            pytest.fail(f"HARNESS_REQUIRE_NSYS is set, and {error}")
        pytest.skip(f"NOT TESTED with a real nsys: {error}")
    return found
