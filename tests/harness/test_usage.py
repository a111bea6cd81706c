"""What can be typed wrong, and which paths can be given: `python -m harness`, run for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import settings, usage
from harness.errors import ExitCode, UserError
from tests.harness.cli import Command

BAD_USAGE = {
    "no scope": ([], 2, ["no scope", "+scope=NAME", "fake_one"]),
    "unknown scope": (["+scope=typo"], 2, ["no scope named 'typo'", "fake_one", "fake_two"]),
    "unknown scope in a sweep": (["-m", "+scope=fake_one,typo"], 2, ["no scope named 'typo'"]),
    "scope without plus": (["scope=fake_one"], 2, ["+scope=NAME"]),
    "several scopes without -m": (["+scope=fake_one,fake_two"], 2, ["-m +scope=fake_one,fake_two"]),
    "unknown model": (["+scope=fake_one", "model=nope"], 2, ["no model named 'nope'", "tiny_random"]),
    "unknown setting": (["+scope=fake_one", "measure.iteratons=3"], 2, ["measure.iterations"]),
    "unknown setting with a plus": (["+scope=fake_one", "+measure.iteratons=3"], 2, ["measure.iterations"]),
    "unknown setting with two": (["+scope=fake_one", "++atention=sdpa"], 2, ["'atention'", "attention"]),
    "a value that Hydra can't read": (["+scope=fake_one", "device=c(pu"], 2, ["device=c(pu", "KEY='VALUE'"]),
    "setting set twice": (["+scope=fake_one", "+attention=sdpa"], 2, ["without the +"]),
    "broken override": (["+scope=fake_one", "attention"], 2, ["attention"]),
    "not a number": (["+scope=fake_one", "measure.iterations=few"], 2, ["measure.iterations=few"]),
    "a number for a section": (["+scope=fake_one", "measure=3"], 2, ["measure=3", "measure.warmup=VALUE"]),
    "null for a section": (["+scope=fake_one", "hypothesis=null"], 2, ["hypothesis=null", "section"]),
    "null for a group": (["+scope=fake_one", "model=null"], 2, ["model=null", "choices"]),
    "null for a folder": (["+scope=fake_one", "outputs=null"], 2, ["outputs=null", "path of a folder"]),
    "null for a sweep's folder": (
        ["-m", "+scope=fake_one,fake_two", "outputs=null"],
        2,
        ["outputs=null", "path of a folder"],
    ),
    "a number for a scope": (["+scope=fake_one", "compare_with=3"], 2, ["compare_with=3", "scope's name"]),
    "a number for expectations": (
        ["+scope=fake_one", "hypothesis.expect=5"],
        2,
        ["hypothesis.expect=5", "at_most"],
    ),
    "a number for an expectation": (
        ["+scope=fake_one", "hypothesis.expect=[5]"],
        2,
        ["hypothesis.expect=[5]", "at_most"],
    ),
    "a reference to nothing": (["+scope=fake_one", "name=${nowhere}"], 2, ["'nowhere' not found"]),
    "no iterations": (["+scope=fake_one", "measure.iterations=0"], 2, ["at least 1"]),
    "unknown device": (["+scope=fake_one", "device=tpu"], 2, ["auto, cuda, cpu"]),
    "unknown capture": (["+scope=fake_one", "capture=cupti"], 2, ["auto, nsys, ncu, kineto, none"]),
    "neither true nor false": (["+scope=fake_one", "resume=maybe"], 2, ["resume=maybe"]),
    "hypothesis that can't be judged": (
        ["+scope=fake_one", "hypothesis.expect=[{metric: idle_share, below: 1}]"],
        2,
        ["at_most"],
    ),
    "no value": (["+scope=fake_one", "model=whisper"], 2, ["model.name=VALUE"]),
    "unknown workload": (["+scope=fake_one", "workload=tests.nowhere"], 2, ["tests.nowhere"]),
    "a module that is no workload": (
        ["+scope=fake_one", "workload=json"],
        2,
        ["workload=json", "check(cfg)", "workload=experiments.transcription"],
    ),
    "a number for a workload": (["+scope=fake_one", "workload=5"], 2, ["workload=5", "Python module"]),
    "no GPU": (["+scope=fake_one", "device=cuda"], 4, ["no GPU", "device=auto", "harness.doctor"]),
    "bad input": (["+scope=fake_one", "fake.mischief=bad_input"], 3, ["the fake audio is silent"]),
}


@pytest.mark.parametrize("name", ["täl k (1)", "it's", "a,b", "2024", "a=b[1]", "null"])
def test_folders_of_any_name(harness: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    done = harness("+scope=fake_one", f"outputs={name}")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / name).glob("fake_one/*/run.json"))


@pytest.mark.parametrize(
    "given, read",
    [
        ("outputs=new folder (1)", "outputs='new folder (1)'"),
        ("audio.path=a'b(.flac", r"audio.path='a\'b(.flac'"),
        ("audio.path=x.flac,y.flac", "audio.path=x.flac,y.flac"),  # a sweep: there is no such file
        ("audio.path='a b'", "audio.path='a b'"),
        ("outputs=null", "outputs=null"),
        ("compare_with=a b(", "compare_with=a b("),
    ],
)
def test_paths_are_quoted_for_hydra_where_they_have_to_be(given: str, read: str) -> None:
    assert usage.quote_paths([given]) == [read]


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage_is_one_message_and_leaves_nothing(harness: Command, tmp_path: Path, case: str) -> None:
    arguments, code, phrases = BAD_USAGE[case]
    done = harness(*arguments)
    assert done.returncode == code
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 2
    for phrase in phrases:
        assert phrase in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_an_unexpected_error_before_a_run_is_one_message_and_keeps_its_traceback(
    harness: Command,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mode: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    done = harness(*mode, "+scope=fake_one", "fake=3")  # which the fake workload does not expect
    assert done.returncode == 1
    (log,) = elsewhere.glob("harness-*.log")
    assert done.stderr.startswith("error: unexpected AttributeError: ")
    assert str(log) in done.stderr and len(done.stderr.splitlines()) == 2
    assert "Traceback" in log.read_text()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (settings.POSITIVE, [0.5, 3], [0, -1, True, "3", None]),
        (settings.whole(2), [2, 3], [1, 2.0, True, "2", None]),
        (settings.whole(2).or_null(), [2, None], [1]),
        (settings.FLAG, [True, False], [0, "true", None]),
        (settings.one_of("a", "b"), ["a"], ["c", "ab", None]),
        (settings.FOLDER, ["a/b"], ["", 5, None]),
    ],
)
def test_which_values_a_rule_takes(rule: settings.Rule, good: list[object], bad: list[object]) -> None:
    for value in good:
        settings.check({"key": value}, {"key": rule})
    for value in bad:
        with pytest.raises(UserError, match=f"is not {rule.valid}"):
            settings.check({"key": value}, {"key": rule})


def test_an_interrupt_that_omegaconf_turns_into_an_error_of_its_own_is_one() -> None:
    try:
        try:
            raise KeyboardInterrupt
        finally:
            OmegaConf.create({"key": object()})
    except OmegaConfBaseException as error:
        assert usage.explain(error).exit_code == ExitCode.INTERRUPTED
