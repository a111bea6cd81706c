"""Reading ahead, and windows of many files in one batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.audio import SAMPLE_RATE_HZ
from experiments.transcribe.ahead import ahead, gathered
from experiments.transcribe.decoding import Decoded, Window
from experiments.transcribe.long_form import LongFormOptions, decode_stretch
from experiments.transcribe.pipeline import Outcome, Pipeline
from experiments.transcribe.reading import Sound, open_sound
from tests.experiments.bad_sound import bad_sound
from tests.experiments.scripted import LANGUAGE, Scripted, at, noise, said


def test_a_thread_keeps_some_items_ready_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            made.append(n)
            yield n

    found = ahead(items(), depth=3)
    assert next(found) == 0
    time.sleep(0.3)
    assert len(made) <= 6
    assert list(found) == list(range(1, 100))


def test_all_items_of_all_sources_come_and_problems_do_too() -> None:
    def tens(n: int) -> Iterator[int]:
        yield from range(n * 10, n * 10 + 5)

    sources = [partial(tens, n) for n in range(7)]
    assert sorted(gathered(sources, threads=3, depth=2)) == [n * 10 + m for n in range(7) for m in range(5)]
    assert list(gathered([], threads=2, depth=2)) == []

    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(gathered([broken], threads=1, depth=2))


def test_threads_end_when_nobody_wants_their_items() -> None:
    before = threading.active_count()
    found = gathered([lambda: iter(int, 1)] * 3, threads=3, depth=2)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


DECODE = partial(decode_stretch, language=LANGUAGE, options=LongFormOptions())


def length(window: Window) -> Decoded:
    """One segment over the whole window that says how many seconds it has."""
    seconds = len(window.pcm) / SAMPLE_RATE_HZ
    return said(at(0), round(seconds), at(seconds))


def transcribe(paths: list[Path], decoder: Scripted, sequential: bool) -> list[Outcome]:
    return list(Pipeline(decoder, DECODE, "en", sequential).transcribe(paths))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for n, seconds in enumerate((5, 70, 3, 41)):
        paths.append(tmp_path / f"{n}.wav")
        soundfile.write(paths[-1], noise(seconds, seed=n), SAMPLE_RATE_HZ)
    return paths


@pytest.mark.parametrize("sequential", [True, False])
def test_files_share_batches_and_come_out_in_order(files: list[Path], sequential: bool) -> None:
    decoder = Scripted(length, batch=3)
    outcomes = transcribe(files, decoder, sequential)
    assert [outcome.path for outcome in outcomes] == files
    for outcome, seconds in zip(outcomes, (5, 70, 3, 41), strict=True):
        assert outcome.transcript is not None
        segments = outcome.transcript.segments
        assert (segments[0].start, segments[-1].end) == (0, pytest.approx(seconds, abs=0.02))
        assert all(abs(a.end - b.start) < 0.02 for a, b in pairwise(segments))
    sizes = [len(windows) for windows in decoder.asked]
    assert max(sizes) == 3 and len(sizes) <= 4


@pytest.mark.parametrize("sequential", [True, False])
def test_a_bad_file_does_not_stop_the_others(files: list[Path], sequential: bool, tmp_path: Path) -> None:
    late = noise(65)
    late[-100] = float("nan")
    soundfile.write(tmp_path / "late.wav", late, SAMPLE_RATE_HZ, subtype="FLOAT")
    paths = [bad_sound(tmp_path, "text"), files[0], tmp_path / "late.wav", files[1]]
    outcomes = transcribe(paths, Scripted(length, batch=2), sequential)
    assert [outcome.path for outcome in outcomes] == paths
    assert [outcome.error is None for outcome in outcomes] == [False, True, False, True]
    assert "NaN" in str(outcomes[2].error) and outcomes[2].transcript is None


def test_seconds_are_told_as_they_are_heard(files: list[Path]) -> None:
    heard: dict[Path, float] = {}
    pipeline = Pipeline(Scripted(length, batch=2), DECODE, "en", False)
    for _ in pipeline.transcribe(files, lambda path, s: heard.update({path: heard.get(path, 0) + s})):
        pass
    assert [heard[file] for file in files] == [pytest.approx(s, abs=0.05) for s in (5, 70, 3, 41)]


@dataclass(frozen=True)
class Broken(Sound):
    """One that is read for a while, and then meets what nobody thought of."""

    def blocks(self) -> Iterator[np.ndarray]:
        yield noise(40)
        raise self.problem


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ValueError("odd"), "was not transcribed: unexpected ValueError: odd"),
        (OSError(5, "I/O"), "can't be read (I/O)"),
    ],
)
def test_whatever_goes_wrong_in_a_file_does_not_stop_the_others(
    problem: Exception, said: str, sequential: bool, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "problem", problem, raising=False)

    def opened(path: Path) -> Sound:
        if path == files[0]:
            raise problem
        return Broken(path, 90.0, SAMPLE_RATE_HZ) if path == files[1] else open_sound(path)

    monkeypatch.setattr("experiments.transcribe.pipeline.open_sound", opened)
    outcomes = transcribe(files, Scripted(length, batch=2), sequential)
    assert [outcome.transcript is None for outcome in outcomes] == [True, True, False, False]
    assert [str(outcome.error) for outcome in outcomes[:2]] == [f"{file} {said}" for file in files[:2]]


def test_an_interruption_is_none_of_a_file_s(files: list[Path]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Pipeline(Scripted(length), DECODE, "en", True).transcribe(files, interrupted))
