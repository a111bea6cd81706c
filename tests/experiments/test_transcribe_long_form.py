"""Windows one after the other: where each begins, what it is told of the one before, what is heard again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ
from experiments.transcribe.decoding import Decoded, Window
from experiments.transcribe.fallback import Thresholds, compression_ratio
from experiments.transcribe.long_form import LongFormOptions, decode_stretch
from experiments.transcribe.results import Segment
from tests.experiments.scripted import LANGUAGE, PREVIOUS, Samples, at, noise, said


def drive(
    pcm: np.ndarray, answer: Callable[[int, Window], Decoded], options: LongFormOptions | None = None
) -> tuple[list[Segment], list[Window]]:
    """Listen to `pcm`; `answer` gets the number of the window and the window."""
    decoding = decode_stretch(Samples(pcm), 0.0, lambda _: None, LANGUAGE, options or LongFormOptions())
    windows: list[Window] = []
    try:
        windows.append(next(decoding))
        while True:
            windows.append(decoding.send(answer(len(windows) - 1, windows[-1])))
    except StopIteration as end:
        return end.value, windows


def starts(windows: list[Window]) -> list[float]:
    """Seconds at which the windows begin, of a file of 60 s whose windows are 30 s or reach its end."""
    return [window.seed / 1000 for window in windows]


def test_a_window_begins_where_the_segments_of_the_one_before_end() -> None:
    answers = [
        said(at(0), 1, at(10), at(10), 2, at(25), at(26), 3),
        said(at(1), 3, at(20), at(20), 4, at(30)),
        said(at(0), 5, at(5)),
    ]
    segments, windows = drive(noise(60), lambda n, _: answers[n])
    assert starts(windows) == [0, 25, 55]
    assert [len(window.pcm) / SAMPLE_RATE_HZ for window in windows] == [30, 30, 5]
    assert [(s.start, s.end, s.text) for s in segments] == [
        (0, 10, " w1"),
        (10, 25, " w2"),
        (26, 45, " w3"),
        (45, 55, " w4"),
        (55, 60, " w5"),
    ]


def test_the_text_before_is_the_prompt_if_it_is_wanted() -> None:
    def answer(n: int, _: Window) -> Decoded:
        return said(at(0), n, n, n, at(30))

    _, told_nothing = drive(noise(60), answer)
    _, told = drive(noise(90), answer, LongFormOptions(previous_tokens=4))
    assert {window.prompt for window in told_nothing} == {LANGUAGE.task}
    assert told[1].prompt == (PREVIOUS, 0, 0, 0, *LANGUAGE.task)
    assert told[2].prompt == (PREVIOUS, 0, 1, 1, 1, *LANGUAGE.task)


def test_what_repeats_itself_or_is_unsure_is_drawn_again_and_not_told_to_the_next_window() -> None:
    repeated = [at(0), *[7] * 200, at(30)]

    def answer(n: int, window: Window) -> Decoded:
        if n == 0:
            return said(*repeated)
        return said(at(0), 1, at(30), logprob=-0.2 if window.temperature > 0.5 or n > 3 else -2.0)

    segments, windows = drive(noise(60), answer, LongFormOptions(previous_tokens=50))
    assert [window.temperature for window in windows] == [0.0, 0.2, 0.4, 0.6, 0.0]
    assert segments[0].temperature == 0.6
    assert len({window.seed for window in windows[:4]}) == 1
    assert windows[4].prompt == LANGUAGE.task


def test_the_last_temperature_is_taken_as_it_is() -> None:
    segments, windows = drive(noise(20), lambda n, _: said(at(0), 1, at(20), logprob=-2.0))
    assert [window.temperature for window in windows] == list(Thresholds().temperatures)
    assert segments[0].temperature == 1.0


def test_where_nobody_speaks_nothing_is_written() -> None:
    def answer(n: int, _: Window) -> Decoded:
        return said(at(0), 1, at(30), logprob=-1.5 if n == 0 else -0.1, no_speech=0.9)

    segments, windows = drive(noise(60), answer)
    assert starts(windows) == [0, 30], "silence is not drawn again"
    assert [(s.start, s.no_speech_prob) for s in segments] == [(30, 0.9)], "a sure text is believed"


def test_that_nothing_more_is_said_is_believed_if_the_rest_is_quiet() -> None:
    loud, quiet = noise(60), noise(60)
    quiet[10 * SAMPLE_RATE_HZ : 30 * SAMPLE_RATE_HZ] *= 0.01

    def answer(n: int, _: Window) -> Decoded:
        return said(at(0), 1, at(10)) if n == 0 else said(at(0), 2, at(30))

    assert starts(drive(quiet, answer)[1]) == [0, 30]
    assert starts(drive(loud, answer)[1])[:2] == [0, 10]
    assert starts(drive(loud, answer, LongFormOptions(verify_silence=False))[1])[:2] == [0, 30], (
        "Whisper always believes"
    )


def test_speech_without_text_is_heard_again_once_from_a_second_later() -> None:
    segments, windows = drive(noise(62), lambda n, _: said(at(0)) if n < 2 else said(at(0), 1, at(30)))
    assert starts(windows) == [0, 1, 31, 61]
    assert segments[0].start == 31


def test_a_window_begins_where_there_is_sound() -> None:
    late = noise(30)
    late[: 5 * SAMPLE_RATE_HZ] = 0
    _, windows = drive(late, lambda n, _: said(at(0), 1, at(25.3)))
    assert 4.4 < starts(windows)[0] < 4.9
    _, windows = drive(late, lambda n, _: said(at(0), 1, at(30)), LongFormOptions(verify_silence=False))
    assert starts(windows) == [0]


def test_every_second_is_counted_once() -> None:
    heard: list[float] = []
    decoding = decode_stretch(Samples(noise(61.5)), 100.0, heard.append, LANGUAGE, LongFormOptions())
    window = next(decoding)
    assert window.seed == 100_000
    try:
        while True:
            window = decoding.send(said(at(0), 1, at(len(window.pcm) / SAMPLE_RATE_HZ)))
    except StopIteration as end:
        assert end.value[-1].end == 161.5
    assert sum(heard) == 61.5


def test_compression_ratio_is_that_of_zlib() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("again " * 100) > 20
    assert compression_ratio("Nothing is said twice in here.") < 1.2
