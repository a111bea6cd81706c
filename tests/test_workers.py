"""How pytest-xdist spreads the tests over its workers."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("workers")
def test_a_group_of_tests_shares_a_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist 3.8 writes the group where pytest 9.2 no longer reads it: without a word, each worker then
    makes all that a group shares, and two nsys start at once."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("NOT TESTED: one process, or not --dist loadgroup (make test has both)")
    assert request.node.nodeid.endswith("@workers")
