"""The bundled checkpoint on minutes of speech, both ways; hours in little memory; the same on a GPU."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import jiwer
import pytest
import soundfile

from experiments import audio, word_errors
from experiments.audio import SAMPLE_RATE_HZ
from experiments.transcribe import Transcriber
from experiments.transcribe.decoding import Collect, Window
from experiments.transcribe.joined import Joined, disorder, join
from experiments.transcribe.pipeline import Pipeline
from tests.experiments.bad_sound import bad_sound
from tests.experiments.conftest import CLIPS, ROOT
from tests.experiments.scripted import Scripted, at, said
from tests.experiments.test_transcribe_together import DECODE

pytestmark = pytest.mark.xdist_group("transcribe_quality")  # what they share is made once

HELD_OUT = CLIPS / "heldout"


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Joined]:
    joined = join(audio.load(HELD_OUT), 70, seed=3)
    file = tmp_path_factory.mktemp("minutes") / "minutes.flac"
    soundfile.write(file, joined.samples, SAMPLE_RATE_HZ)
    return file, joined


def errors(heard: str, spoken: str) -> jiwer.WordOutput:
    normal = word_errors.normalizer_for("en")
    return jiwer.process_words(normal(spoken), normal(heard))


@pytest.mark.slow
def test_long_sound_is_transcribed_as_well_as_short_both_ways(minutes: tuple[Path, Joined]) -> None:
    file, joined = minutes
    card = json.loads((ROOT / "experiments" / "checkpoint" / "evaluation.json").read_text())
    short = errors(" ".join(card["words"]["texts"][source] for source in joined.sources), joined.reference)
    texts = []
    for batch in (1, 6):
        transcript = Transcriber(batch=batch)(file)
        output = errors(transcript.text, joined.reference)
        assert output.wer <= short.wer + 0.01
        lost = [c.ref_end_idx - c.ref_start_idx for c in output.alignments[0] if c.type == "delete"]
        added = [c.hyp_end_idx - c.hyp_start_idx for c in output.alignments[0] if c.type == "insert"]
        assert max([0, *lost, *added]) < 4, "no segment is lost or said twice"
        assert disorder(transcript.segments) == 0
        texts.append(transcript.text)
    assert errors(*texts).wer <= 0.01


def test_word_times_follow_the_sentences() -> None:
    transcript = Transcriber(word_timestamps=True)(HELD_OUT / "22_noise.ogg")
    for segment in transcript.segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(a.end <= b.start for a, b in pairwise(segment.words))
        assert segment.start <= segment.words[0].start and segment.words[-1].end <= segment.end


class Forgetful(Scripted):
    """Does not keep what it was asked."""

    def queue(self, windows: Sequence[Window]) -> Collect:
        answers = super().queue(windows)()
        self.asked.clear()
        return lambda: answers


@pytest.mark.slow
def test_hours_are_read_in_little_memory(tmp_path: Path) -> None:
    hours = bad_sound(tmp_path, "hours")
    decoder = Forgetful(lambda _: said(at(0), no_speech=1.0), batch=2)
    tracemalloc.start()
    try:
        (outcome,) = Pipeline(decoder, DECODE, "en", sequential=False).transcribe([hours])
        assert outcome.transcript is not None and outcome.transcript.dur_s == 3 * 3600
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6


@pytest.mark.gpu
@pytest.mark.parametrize("scope", ["cuda_graphs", "single_launch", "fused_topk", "optimized"])
def test_scopes_transcribe_alike_on_a_gpu(scope: str, minutes: tuple[Path, Joined]) -> None:
    file, joined = minutes
    for batch in (1, 6):
        transcriber = Transcriber(scope=scope, batch=batch, device="cuda")
        once, again = transcriber(file), transcriber(file)
        assert errors(once.text, joined.reference).wer <= 0.04
        assert once == again
