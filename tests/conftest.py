"""What the tests of several rooms need."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import environment, nsys
from harness.errors import UserError

# Before torch is imported, here and in the commands of tests: the workers of pytest-xdist fill the cores, and
# threads beyond that mostly wait for one another. Sums also come in the same order each time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what takes more than ten seconds each")


def pytest_configure() -> None:
    """Ctrl-C reaches the commands of tests, too, where a script started the tests in the background: its
    shell had SIGINT ignored then, and whatever they start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests wait to be asked for (--slow, or HARNESS_SLOW, as CI does), GPU tests for a GPU; tests with
    a real nsys share one worker.

    nsys 2022.4 now and then fails to start while another one starts.
    """
    not_asked = pytest.mark.skip(reason="NOT TESTED: slow (make test ARGS=--slow)")
    no_gpu = pytest.mark.skip(reason="NOT TESTED: needs an NVIDIA GPU")
    has_gpu = environment.gpu() is not None
    asked = config.getoption("--slow") or os.environ.get("HARNESS_SLOW")
    for item in items:
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(no_gpu)
        elif item.get_closest_marker("slow") and not asked:
            item.add_marker(not_asked)
        if item.get_closest_marker("nsys"):
            item.add_marker(pytest.mark.xdist_group("nsys"))


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


@pytest.fixture
def no_nvcc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No nvcc for the kernels that aren't loaded yet, whatever was found before."""
    from kernels import build

    known = (build._nvcc, build._no_compiler)
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    for answer in known:
        answer.cache_clear()
    yield
    for answer in known:
        answer.cache_clear()


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser. Without one the test is skipped; with HARNESS_REQUIRE_CHROMIUM (CI) it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("HARNESS_REQUIRE_CHROMIUM"):
            pytest.fail("HARNESS_REQUIRE_CHROMIUM is set, and there is no chromium")
        pytest.skip("NOT TESTED in a browser: no chromium (apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def graphs() -> list[object]:
    """Keeps captured graphs alive: destroying one can break later captures (CONTRIBUTING.md)."""
    return []
