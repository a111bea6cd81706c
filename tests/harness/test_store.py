"""results.db: an index that is whole or unchanged, and that can be made anew."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitCode, UserError
from harness.metrics import source_of
from harness.record import Record, write_json
from harness.results import left_out, newest_per_scope, origin, replace_between_marks
from harness.store import MIGRATIONS, Store
from tests.harness.cli import ROOT, call

TABLES = ("runs", "iterations", "metrics", "transcripts")


def rows(db: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(db)) as connection:
        return {table: sorted(connection.execute(f"select * from {table}"), key=repr) for table in TABLES}


def results(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call([sys.executable, "-m", "harness.results", *arguments], cwd)


@pytest.fixture
def outputs(swept: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the folder of two finished runs."""
    return Path(shutil.copytree(swept[0] / "outputs", tmp_path / "outputs"))


def test_a_rebuilt_database_holds_the_same_rows(outputs: Path) -> None:
    before = rows(outputs / "results.db")
    assert all(before.values())
    (outputs / "results.db").write_bytes(b"this was a database once")
    damaged = results(outputs.parent, "list")
    assert damaged.returncode == ExitCode.STORAGE and "rebuild" in damaged.stderr
    assert results(outputs.parent, "rebuild").returncode == 0
    assert rows(outputs / "results.db") == before


def test_where_runs_lie_without_a_database_the_way_to_one_is_told(outputs: Path) -> None:
    (outputs / "results.db").unlink()
    done = results(outputs.parent, "list")
    assert done.returncode == 2
    assert "results rebuild --db outputs/results.db makes it from the runs there" in done.stderr


def test_rebuild_skips_a_broken_record_and_says_so(outputs: Path) -> None:
    (broken,) = outputs.glob("fake_two/*/run.json")
    broken.write_text("{")
    done = results(outputs.parent, "rebuild")
    assert done.returncode == 0 and "fake_two" in done.stderr and "run.json" in done.stderr
    assert [row[2] for row in rows(outputs / "results.db")["runs"]] == ["fake_one"]


def test_a_run_is_stored_whole_or_not_at_all(outputs: Path) -> None:
    before = rows(outputs / "results.db")
    (folder,) = outputs.glob("fake_one/*")
    write_json(folder / "measure.json", {"iterations": [], "transcripts": [{"source": "no window"}]})
    store = Store(outputs)
    with pytest.raises(KeyError):
        store.put(Record.load(folder))
    store.close()
    assert rows(outputs / "results.db") == before


def test_a_newer_database_is_left_alone(outputs: Path) -> None:
    with closing(sqlite3.connect(outputs / "results.db")) as db:
        db.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(UserError, match="newer harness") as caught:
        Store(outputs)
    assert caught.value.exit_code == ExitCode.STORAGE


NEWER = ("dirty", "word_errors", "verdict")  # columns that came after the first version, in order


@pytest.mark.parametrize("version", range(len(NEWER)))
def test_an_older_database_keeps_its_rows(outputs: Path, version: int) -> None:
    path = outputs / "results.db"
    before = rows(path)
    with closing(sqlite3.connect(path)) as db:
        for column in NEWER[version:]:
            db.execute(f"alter table runs drop column {column}")
        db.execute(f"pragma user_version = {version + 1}")
        db.commit()
    Store(outputs).close()
    after = rows(path)
    kept = version - len(NEWER)
    assert [row[:kept] for row in after["runs"]] == [row[:kept] for row in before["runs"]]
    assert [len(row) for row in after["runs"]] == [len(row) for row in before["runs"]]
    assert {name: after[name] for name in TABLES[1:]} == {name: before[name] for name in TABLES[1:]}


def test_a_record_from_before_word_errors_is_read(outputs: Path) -> None:
    for path in outputs.glob("*/*/run.json"):
        old = json.loads(path.read_text())
        del old["word_errors"]
        for name in ("positions", "agreement"):
            (old["tokens_match"] or {}).pop(name, None)
        write_json(path, old)
    done = results(outputs.parent, "rebuild")
    assert done.returncode == 0 and not done.stderr
    table = results(outputs.parent, "table", "--markdown")
    assert "| identical |" in table.stdout and "WER" not in table.stdout
    assert "WER" not in results(outputs.parent, "list").stdout


def test_the_published_runs_give_the_table_in_the_readme(tmp_path: Path) -> None:
    published = Path(shutil.copytree(ROOT / "results" / "h200", tmp_path / "h200"))
    (published / "results.db").unlink(missing_ok=True)
    shutil.copy(ROOT / "README.md", tmp_path)
    db = ("--db", "h200/results.db")
    assert results(tmp_path, "rebuild", *db).returncode == 0
    assert results(tmp_path, "table", *db, "--update", "README.md").returncode == 0
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_only_runs_whose_process_is_gone_are_marked(outputs: Path) -> None:
    one, two = (Record.load(folder) for folder in sorted(outputs.glob("fake_*/*")))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    store = Store(outputs)
    for record, pid in ((one, gone.pid), (two, one.pid)):
        record.status = "running"
        record.pid = pid
        record.save(outputs)
    two.host = "another machine"
    store.put(one)
    store.put(two)
    store.close()
    Store(outputs).close()
    statuses = {row[2]: row[3] for row in rows(outputs / "results.db")["runs"]}
    assert statuses == {"fake_one": "failed", "fake_two": "running"}
    assert Record.load(outputs / one.id).status == "failed"


def test_the_table_goes_into_a_readme(outputs: Path) -> None:
    readme = outputs.parent / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    assert results(outputs.parent, "table", "--update", "README.md").returncode == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.index("| fake_one |") < text.index("| fake_two |")
    assert "reference" in text and "identical" in text and "bundled" in text
    assert text.endswith("; medians of 3 iterations after 1 of warm-up\n<!-- results:end -->\nafter\n")
    assert results(outputs.parent, "table", "--update", "README.md").returncode == 0
    assert readme.read_text() == text


def test_a_table_that_is_piped_cuts_nothing_and_says_what_it_leaves_out(outputs: Path) -> None:
    whole = results(outputs.parent, "table").stdout
    header = next(line for line in whole.splitlines() if " scope " in line)
    assert "ms per token (p25–p75)" in header and header.rstrip().endswith("tokens"), "one line for all"
    assert "not shown" not in whole
    (older,) = outputs.glob("fake_one/*")
    other = Record.load(older)
    other.inputs, other.model = "other", "tiny_random"
    other.save(outputs)
    assert results(outputs.parent, "rebuild").returncode == 0
    said = "not shown: 1 run with other inputs or of another machine (models: tiny_random)"
    done = results(outputs.parent, "table")
    assert done.stdout.splitlines()[-1] == said and "fake_one" not in done.stdout
    document = results(outputs.parent, "table", "--markdown")
    assert said in document.stderr and said not in document.stdout


def test_the_table_says_where_runs_were_repeated_differently_or_is_silent(outputs: Path) -> None:
    (one,), (two,) = outputs.glob("fake_one/*/measure.json"), outputs.glob("fake_two/*/measure.json")
    write_json(one, json.loads(one.read_text()) | {"warmup": 5})
    shown = "medians of 3 iterations after 1 of warm-up or 3 iterations after 5 of warm-up"
    assert shown in results(outputs.parent, "table", "--markdown").stdout
    for path in (one, two):
        path.unlink()
    assert "medians" not in results(outputs.parent, "table", "--markdown").stdout


def finished(scope: str, started: str, **others: Any) -> dict[str, Any]:
    about = {"machine": "H200", "inputs": "1", "model": "small", "tokens_match": None, "status": "finished"}
    code = {"commit": "1a2b3c4d", "dirty": 0, "word_errors": None}
    return about | code | {"scope": scope, "started_utc": f"{started}T120000Z"} | others


def test_only_runs_of_the_newest_ones_inputs_and_machine_share_a_table() -> None:
    """The inputs are audio and number of tokens, too: a model of the same name alone makes runs not alike."""
    runs = [
        finished("flash", "20261120"),
        finished("baseline", "20261121", inputs="2"),
        finished("graphs", "20261122", machine="A100"),
        finished("int8", "20261123", status="failed"),
        finished("flash", "20261124", tokens_match="{}"),
        finished("baseline", "20261125"),
    ]
    assert newest_per_scope(runs) == [runs[5], runs[4]], "what is compared with no other comes first"
    said = "not shown: 2 runs with other inputs or of another machine (models: small)"
    assert left_out(runs, runs[5]) == said


def test_a_table_names_the_first_and_the_last_day_and_all_states_of_the_code() -> None:
    runs = [finished("a", "20261122"), finished("b", "20261201", dirty=1), finished("c", "20261129")]
    assert origin(runs) == "H200, small, 2026-11-22 to 2026-12-01, 1a2b3c4, 1a2b3c4+changes"
    assert origin(runs[:1]) == "H200, small, 2026-11-22, 1a2b3c4"


@pytest.mark.parametrize(
    ("source", "metrics"),
    [
        ("measured", ["ms_per_token", "encode_ms.p25", "wer", "acceptance", "speedup", "decode.floor_ratio"]),
        ("traced", ["idle_share", "decode.gap_median_us", "kernels_per_token", "busy_ms_per_token.low"]),
        ("sampled", ["encode.dram_gbps", "decode.dram_share", "decode.bytes_per_step",
                     "decode.bytes_per_phase", "decode.bytes_per_token"]),
        ("both", ["profiling_overhead", "metrics_overhead"]),
    ],
)  # fmt: skip
def test_the_database_knows_which_process_a_metric_comes_from(source: str, metrics: list[str]) -> None:
    assert {name: source_of(name) for name in metrics} == dict.fromkeys(metrics, source)


def test_a_readme_without_a_place_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    with pytest.raises(UserError, match="no place"):
        replace_between_marks(readme, "table")
    assert readme.read_text() == "nothing here\n"


def test_no_database_is_one_message(tmp_path: Path) -> None:
    done = results(tmp_path, "list")
    assert done.returncode == ExitCode.USAGE and done.stderr.startswith("error: outputs/results.db")


def test_no_folder_to_rebuild_from_is_one_message(tmp_path: Path) -> None:
    done = results(tmp_path, "rebuild")
    assert done.returncode == ExitCode.USAGE and done.stderr.startswith("error: there is no folder outputs")
    assert not list(tmp_path.iterdir())
