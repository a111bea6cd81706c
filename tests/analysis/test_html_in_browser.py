"""report.html in Chromium: that its script runs, nothing is loaded, and nothing is complained about."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread
from test_html import EVIL, hypothesis, with_memory

from analysis import Account, Trace, html


def browse(chromium: str, page: Path, width: int = 1280) -> tuple[str, str, Path]:
    """The DOM after scripts have run, what the console said, and a screenshot."""
    shot = page.with_suffix(f".{width}.png")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--disable-background-networking", f"--user-data-dir={page.parent / 'profile'}", "--dump-dom",
        f"--window-size={width},1600", f"--screenshot={shot}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr)), shot


@pytest.mark.slow
def test_a_browser_shows_the_page_and_has_nothing_to_complain_about(
    chromium: str, eager: tuple[Trace, Account], tmp_path: Path
) -> None:
    trace, acc = eager
    acc = replace(acc, kernels=acc.kernels.assign(name=[EVIL, *acc.kernels["name"].astype(str)[1:]]))
    report = html.of_trace(trace, acc, with_memory(acc))
    report = replace(report, hypotheses=[hypothesis("graphs", False, "DID NOT HOLD", "")])
    page = html.write(tmp_path / "report.html", report)
    dom, console, shot = browse(chromium, page)
    assert console == "", "the page may load nothing, so a request would be reported here as refused"
    assert 'role="button"' in dom, "its script ran"
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in dom
    assert imread(shot).std() > 0.05, "something is drawn"


@pytest.mark.slow
def test_a_page_that_asks_the_network_would_be_noticed(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    asking = '<img src="http://127.0.0.1:9/x.png"></body>'
    page.write_text(html.render(html.Report("t", "h")).replace("</body>", asking))
    assert "127.0.0.1" in browse(chromium, page)[1]
