"""A run's word errors: on the screen, in its record, in the database, and judged."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harness.report import word_error_lines
from harness.results import tokens_in_words, without_empty
from tests.harness.cli import argv, call, records

pytestmark = pytest.mark.xdist_group("word_errors")  # what they share is made once

BOAT = [
    "{source:boat.wav,window:0,text:'The boat sails,',reference:'The boat sails slowly into harbour.'}",
    "{source:boat.wav,window:1,text:'slowly in harbour.',reference:'The boat sails slowly into harbour.'}",
]
OTHERS = [
    "{source:dawn.wav,window:0,text:'at dawn',reference:'At dawn!'}",
    "{source:noise.wav,window:0,text:'uh',reference:null}",
]
RUNS = (
    ("+scope=fake_one", f"fake.heard=[{','.join(BOAT + OTHERS)}]"),
    (
        "+scope=fake_two",
        f"fake.heard=[{','.join(BOAT + OTHERS)}]",
        "fake.tokens=[1,2,4]",
        "hypothesis.expect=[{metric:wer,at_most:0.1},{metric:token_agreement,at_least:0.6}]",
    ),
)


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with two runs that heard words, and what each printed. Tests must not change it."""
    cwd = tmp_path_factory.mktemp("heard")
    done = [call(argv(*arguments), cwd) for arguments in RUNS]
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    return cwd, [one.stdout for one in done]


def results(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call([sys.executable, "-m", "harness.results", *arguments], cwd)


def test_the_rates_are_printed_and_recorded(heard: tuple[Path, list[str]]) -> None:
    cwd, (printed, _) = heard
    one, _ = records(cwd)
    # "into" is heard as "in": one word of eight. Of the 34 + 7 characters two are missing.
    assert one["metrics"]["wer"] == 1 / 8 and one["metrics"]["cer"] == 2 / 41
    assert one["word_errors"]["normalizer"] == "EnglishTextNormalizer"
    assert one["environment"]["packages"]["jiwer"]
    report = (cwd / "outputs" / one["id"] / "report.txt").read_text()
    sentence = "Words: 12.50% WER, 4.88% CER over 8 words of 2 clips (jiwer, EnglishTextNormalizer): "
    sentence += "substitutions 1, deletions 0, insertions 0. Clips left out, without a reference: 1."
    for text in (printed, report):
        assert sentence in " ".join(text.split())
        assert "REF: the boat sails slowly into harbour\nHYP: the boat sails slowly   in harbour\n" in text
        assert "dawn.wav (errors" not in text, "a clip without errors is not listed"


def test_the_database_has_the_rates_and_what_they_were_counted_with(heard: tuple[Path, list[str]]) -> None:
    cwd, _ = heard
    with closing(sqlite3.connect(cwd / "outputs" / "results.db")) as db:
        found = db.execute("select value, source from metrics where metric = 'wer'").fetchall()
        names = db.execute("select json_extract(word_errors, '$.normalizer') from runs").fetchall()
        agreement = db.execute(
            "select value, source from metrics where metric = 'token_agreement'"
        ).fetchall()
    assert found == [(1 / 8, "measured")] * 2
    assert names == [("EnglishTextNormalizer",)] * 2
    assert agreement == [(2 / 3, "measured")]


def test_a_hypothesis_on_words_and_tokens_is_judged_on_a_cpu(heard: tuple[Path, list[str]]) -> None:
    _, two = records(heard[0])
    words, tokens = two["verdict"]
    assert (words["held"], words["expect"], words["value"]) == (False, "at most 10.00%", 1 / 8)
    assert (tokens["held"], tokens["value"]) == (True, 2 / 3)
    assert two["tokens_match"]["positions"] == 12 and not two["tokens_match"]["identical"]


def test_the_tables_show_the_rates(heard: tuple[Path, list[str]]) -> None:
    cwd, _ = heard
    assert results(cwd, "list").stdout.count("12.50% (4.88%)") == 2
    table = results(cwd, "table", "--markdown").stdout
    header, marks, *rows = table.splitlines()
    assert header.endswith("| WER (CER) | tokens | hypothesis |")
    assert len(header.split("|")) == len(marks.split("|"))
    assert "| 12.50% (4.88%) | reference |" in rows[0]
    assert "| 12.50% (4.88%) | differ from position 2 (logit margin 0.5); 66.67% equal |" in rows[1]
    assert "; word errors: jiwer, EnglishTextNormalizer; medians of " in rows[-1]


def test_a_column_stays_if_one_run_has_a_value() -> None:
    header = ("scope", "WER (CER)", "tokens")
    rows = [["baseline", "–", "reference"], ["flash", "1.00% (0.50%)", "identical"]]
    assert without_empty(header, rows) == (header, rows)
    assert without_empty(header, rows[:1]) == (("scope", "tokens"), [["baseline", "reference"]])


def test_no_rate_is_one_sentence() -> None:
    found = {"wer": None, "cer": None, "why": "the references hold no words"}
    assert word_error_lines(found) == "Words: no error rate: the references hold no words."


def test_each_kind_of_error_has_its_own_number() -> None:
    found = {
        "wer": 0.0625, "cer": 0.031, "words": 1600, "clips": 1, "library": "jiwer", "normalizer": "N",
        "substitutions": 60, "deletions": 30, "insertions": 10, "clips_without_reference": 0,
        "worst": [{"source": "a.wav", "errors": 7, "words": 40, "alignment": "REF: …"}],
    }  # fmt: skip
    assert word_error_lines(found).splitlines() == [
        "Words: 6.25% WER, 3.10% CER over 1,600 words of 1 clip (jiwer, N): substitutions 60, deletions 30, "
        "insertions 10.",
        "a.wav (errors 7, words 40)",
        "REF: …",
    ]


def test_tokens_that_end_earlier_have_no_margin() -> None:
    difference = {"position": 3, "margin": None}
    match = {"identical": False, "first_difference": difference, "agreement": 0.99, "positions": 300}
    assert tokens_in_words(match) == "differ from position 3 (logit margin unknown); 99.00% equal"
