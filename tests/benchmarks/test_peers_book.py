"""The file of the comparison with peers, and the table of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.peers import book, table
from benchmarks.peers.contenders import REFERENCE, named
from harness.errors import UserError
from tests.benchmarks.test_peers import STAMP, row, task


def test_a_new_row_replaces_the_old_one_and_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    early = book.add(path, row("flash", batch=2))
    assert "agreement" not in early  # nothing to compare with yet
    book.add(path, row(REFERENCE, batch=2))
    found = book.add(path, row("flash", batch=2, tokens=[[1, 2, 3, 4], [1, 2, 9, 4]]))
    assert found["agreement"] | {"reference": ""} == {
        "share": 7 / 8, "windows_identical": 1, "first_difference": 2, "reference": "",
    }  # fmt: skip
    kept = book.load(path)
    assert [(one["contender"], one["batch"]) for one in kept] == [(REFERENCE, 2), ("flash", 2)]
    assert kept[0]["chosen"] == ["1 2 3 4"] * 2 and "decoded" not in kept[1]
    book.add(path, row("flash"))
    assert len(book.load(path)) == 3


@pytest.mark.parametrize("name", [REFERENCE, "flash"])
def test_a_row_with_times_is_replaced_only_by_another(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bench.json"
    book.add(path, row(REFERENCE))
    good = book.add(path, row(name))
    for reason in ("failed", "refused"):
        assert book.add(path, row(name, **{reason: "no luck"}))[reason] == "no luck"
        assert good in book.load(path) and not any(reason in one for one in book.load(path))
    assert book.add(path, row("flash"))["agreement"]["share"] == 1, "the reference is still there"
    book.add(path, row("int8", failed="at first"))
    book.add(path, row("int8"))
    assert not any("failed" in one for one in book.load(path))


def test_who_came_before_the_reference_is_compared_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    book.add(path, row(REFERENCE, failed="took more than 3 s"))
    book.add(path, row("flash"))
    book.add(path, row(REFERENCE))
    (found,) = (one for one in book.load(path) if one["contender"] == "flash")
    assert found["agreement"]["share"] == 1 and "decoded" not in found


def test_what_has_times_of_the_same_commit_is_done() -> None:
    rows = [row("flash"), row("int8", failed="at first")]
    assert book.done(rows, named("flash"), task(), STAMP)
    assert not book.done(rows, named("int8"), task(), STAMP)
    for other in (task(batch=2), task(tokens=5), task(device="cuda")):
        assert not book.done(rows, named("flash"), other, STAMP)
    for commit in ("5e6f", None):
        stamp = STAMP | {"git": {"commit": commit, "dirty": None, "diff": None}}
        rows.append(row("int8", stamp=stamp))
        assert not book.done(rows[:1], named("flash"), task(), stamp)
    assert not book.done(rows, named("int8"), task(), stamp), "an unknown commit is never the same"


@pytest.mark.parametrize("lacks", ["contender", "started_utc", "label", "step_ms", "warmup"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, lacks: str) -> None:
    path = tmp_path / "bench.json"
    whole = row("flash")
    path.write_text(json.dumps({"rows": [{name: whole[name] for name in whole if name != lacks}]}))
    before = path.read_text()
    with pytest.raises(UserError, match=rf"bench\.json is no file of this benchmark.*{lacks}"):
        book.add(path, row("flash"))
    assert path.read_text() == before


def test_the_table_says_what_ran_how_fast_and_how_right(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    book.add(path, row(REFERENCE))
    book.add(path, row("flash", total_ms=[50.0], step_ms=[0.5], floor_bytes=1e9, notes=["said so"]))
    book.add(path, row("cuda_graphs", tokens=[[1, 2, 3, 9]]))
    book.add(path, row("openai_whisper", refused="not here (pip install a|b)"))
    book.add(path, row("whisper_cpp", failed="took more than 3 s"))
    rows = [one | {"peak_bps": 4e12} for one in book.load(path)]
    page = table.page(rows)
    lines = page.splitlines()
    assert lines[0] == "Batch 1:"
    assert "| 1.000 (0.950–1.050) |" in page and "| 100.0 (99.5–100.5) | 1.0× | reference |" in page
    assert "| `flash` | 0.500 | 50.0% | 5.00 | 50.0 | 2.0× | identical |" in lines
    assert "75.00% equal, from position 3" in page and "- `flash`: said so" in lines
    assert "Fastest scope against fastest peer, a window: 2.0× at batch 1 (`flash` against " in page
    assert "not run: not here (pip install a\\|b)" in page and "FAILED: took more than 3 s" in page
    assert "H200, tiny_random" in lines[-1] and "1a2b3c4" in lines[-1]
    changed = [one | {"chosen": ["5 5 5 5"]} if one["contender"] == REFERENCE else one for one in rows]
    assert "identical" not in table.page(changed)  # they were compared with other tokens


def test_the_setting_that_most_was_measured_of_is_shown() -> None:
    other = STAMP | {"machine": "A100"}
    rows = [
        row(REFERENCE),
        row("flash"),
        row("int8", failed="x"),
        *(row(n, stamp=other) for n in ("flash", "int8")),
    ]
    assert book.largest(rows) == rows[:3] or book.largest(rows) == rows[3:]
    newer = row("flash", stamp=other, started_utc="20261123T153000Z")
    assert {one["machine"] for one in book.largest([*rows[:3], newer])} == {"H200"}
    assert {one["machine"] for one in book.largest([*rows[:4], newer | {"contender": "int8"}])} == {"A100"}
    assert table.page([*rows[:3], newer]).endswith("; rows of other settings, left out: 1")
    assert "left out" not in table.page(rows[:3])


def test_the_table_names_who_was_measured_only_elsewhere() -> None:
    rows = [row(REFERENCE), row("flash"), row(REFERENCE, batch=8), row("int8", batch=8, failed="x")]
    lines = table.page(rows).splitlines()
    assert "Batch 1 (not measured: `int8`):" in lines and "Batch 8 (not measured: `flash`):" in lines
    folded = lines.index("<details><summary>Batch 8</summary>")
    assert lines.index("Batch 1 (not measured: `int8`):") < folded < lines.index("</details>")


def test_notes_and_the_footer_say_what_they_are_about() -> None:
    rows = [
        row(REFERENCE), row(REFERENCE, batch=8), row(REFERENCE, batch=64, failed="x"),
        row("flash", notes=["always"]),
        row("flash", batch=8, notes=["always", "once"], warmup=5, total_ms=[1.0] * 9),
    ]  # fmt: skip
    lines = table.page(rows).splitlines()
    assert [line for line in lines if line.startswith("- ")] == [
        "- `flash`: always", "- `flash`, batch 8: once",
    ]  # fmt: skip
    assert "4 tokens, medians of 3 to 9 iterations after 1 or 5 of warm-up" in lines[-1]
    assert "medians" not in table.page(rows[2:3])
