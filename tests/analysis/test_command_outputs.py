"""Where `python -m analysis` and its export write, and what they say where they can't."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs_on_disk import write_run, write_trace

from analysis.__main__ import main
from analysis.reading import source


def test_what_is_made_of_a_run_is_named_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest finished run stands for its scope."""
    monkeypatch.chdir(tmp_path)
    for number, status in ((1, "finished"), (2, "finished"), (3, "failed")):
        run = write_run(tmp_path / "runs" / "scope" / str(number), [7.0], status=status)
        write_trace(run / "trace.sqlite", 2, 1000, {"told": 1000})
    scope = tmp_path / "runs" / "scope"
    for given in (scope, scope / "1"):
        assert main([str(given)]) == 0
    assert "its newest finished run is 2" in capsys.readouterr().err
    pages = {page.parent.name: page.read_text() for page in tmp_path.glob("*/report.html")}
    assert set(pages) == {"scope-1-analysis", "scope-2-analysis"}
    assert all(f"<b>scope/{n} · trace.sqlite</b>" in pages[f"scope-{n}-analysis"] for n in (1, 2))
    assert main(["export", str(scope), "--perfetto"]) == 0 and (tmp_path / "scope-2.pftrace").exists()
    write_run(tmp_path / "runs" / "other" / "1", [7.0])
    for words in ([], ["export", "--perfetto"]):
        assert main([*words, str(tmp_path / "runs")]) == 6
        said = capsys.readouterr().err
        assert "holds runs of 2 scopes" in said and f"try: give one of them: {tmp_path / 'runs'}" in said


@pytest.mark.parametrize(
    ("path", "record", "name"),
    [
        ("t.sqlite.xz", None, "t"),
        ("scope/utc/trace.sqlite.xz", '{"id": "scope/2026"}', "scope-2026"),
        ("scope/utc/metrics.sqlite", '{"id": "scope/2026"}', "scope-2026-metrics"),
        ("scope/utc/trace.sqlite", '{"id": "../a b/*"}', "a-b"),
        ("scope/utc/trace.sqlite", "[1]", "scope-utc"),
        ("scope/utc/trace.sqlite", "{", "scope-utc"),
    ],
)
def test_names_of_outputs(path: str, record: str | None, name: str, tmp_path: Path) -> None:
    trace = tmp_path / path
    trace.parent.mkdir(parents=True, exist_ok=True)
    if record:
        (trace.parent / "run.json").write_text(record)
    assert source.output_name(trace) == name


@pytest.mark.parametrize("option", ["--json", "--no-plots"])
def test_no_folder_is_named_for_files_that_are_not_written(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["t.sqlite", option, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"{option} writes none" in said and "--html FILE" in said


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--html", "folder", "--no-plots"], "--html with a file"),
        (["--html", "folder", "--json"], "--html with a file"),
        (["--html", "folder"], "--html with a file"),
        (["--html", "page.html", "--out", "file"], "--out with a folder"),
        (["--out", "file"], "--out with a folder"),
    ],
)
def test_the_way_on_names_the_option_that_is_at_fault(
    options: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert main([str(write_trace(tmp_path / "t.sqlite", 2, 1000, {"a": 1000})), *options]) == 5
    assert f"  try: {hint}" in capsys.readouterr().err
