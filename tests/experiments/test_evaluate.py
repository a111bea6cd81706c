"""The evaluation counts right, says what it can't measure, and finds in the checkpoint what its card says."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from experiments import draft as drafts
from experiments import models
from experiments.audio import sound_files
from experiments.bundled import CHECKPOINT, HELD_OUT
from experiments.evaluate import agreement, pipeline, robustness, timestamps, words
from experiments.evaluate.__main__ import main
from experiments.evaluate.subject import TRUTH_FILE, Subject, open_subject, with_timestamps
from harness.errors import ExitCode
from tests.experiments.conftest import CLIPS

pytestmark = pytest.mark.xdist_group("evaluate")  # what they share is made once

EVALUATION = json.loads((CHECKPOINT / "evaluation.json").read_text())
FEW = ("05_room", "22_noise", "30_clean")  # without errors: no choice was close


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The bundled checkpoint with three of the held-out clips."""
    folder = tmp_path_factory.mktemp("few")
    for name in FEW:
        for suffix in (".ogg", ".txt"):
            shutil.copy(HELD_OUT / f"{name}{suffix}", folder)
    shutil.copy(HELD_OUT / TRUTH_FILE, folder)
    return open_subject(str(CHECKPOINT), folder, "cpu")


@pytest.fixture(scope="module")
def transcripts(few: Subject) -> words.Transcripts:
    return words.transcribe(few)


def test_the_recorded_evaluation_is_of_this_checkpoint_and_these_clips() -> None:
    assert EVALUATION["model"]["name"] == "experiments/checkpoint"
    for name, digest in EVALUATION["model"]["sha256"].items():
        assert hashlib.sha256((CHECKPOINT / name).read_bytes()).hexdigest() == digest, name
    assert (
        hashlib.sha256(b"".join(f.read_bytes() for f in sound_files(HELD_OUT))).hexdigest()
        == (EVALUATION["audio"]["sha256"])
    )
    sizes = {name: (CHECKPOINT / name).stat().st_size for name in EVALUATION["model"]["files"]}
    assert sizes == EVALUATION["model"]["files"]


def test_the_recorded_words_are_heard_again(few: Subject, transcripts: words.Transcripts) -> None:
    recorded = {f"{name}.ogg": EVALUATION["words"]["texts"][f"{name}.ogg"] for name in FEW}
    assert transcripts.texts == recorded
    rates = words.measure(few, transcripts.texts)
    assert set(rates["conditions"]) == {"clean", "noise", "room"}
    total = sum(len((few_clip.reference or "").split()) for few_clip in few.clips)
    assert rates["all"]["clips"] == 3 and rates["all"]["words"] == pytest.approx(total, abs=5)


def test_transformers_gives_the_same_words(few: Subject, transcripts: words.Transcripts) -> None:
    found = pipeline.measure(few, transcripts.texts)
    assert (found["clips"], found["same"], found["differences"]) == (3, 3, [])
    wrong = transcripts.texts | {f"{FEW[0]}.ogg": "something else"}
    (difference,) = pipeline.measure(few, wrong)["differences"]
    assert difference["project"] == "something else" and difference["source"] == f"{FEW[0]}.ogg"


def test_sentences_of_the_checkpoint_begin_and_end_where_they_should(few: Subject) -> None:
    found = timestamps.measure(few)
    segments = sum(len(few.truth[clip.source].segments) for clip in few.clips)
    assert found["all"]["segments"] == segments == sum(c["segments"] for c in found["conditions"].values())
    assert found["all"]["share_within"] > 0.9 and found["wer"] < 0.1


@pytest.mark.parametrize(
    "true, expected",
    [
        ((0.0, 2.0), (0.1, 2.1)),
        ((2.0, 3.0), (2.1, 2.9)),  # shares 0.1 s with the first, 0.8 s with the second
        ((3.0, 3.5), None),  # between two
        ((6.0, 7.0), None),
        ((2.9, 4.2), (4.0, 5.0)),  # a touch is no overlap
    ],
)
def test_the_counterpart_shares_the_most_time(
    true: timestamps.Span, expected: timestamps.Span | None
) -> None:
    assert timestamps.counterpart(true, [(0.1, 2.1), (2.1, 2.9), (4.0, 5.0)]) == expected


def test_a_sentence_counts_if_both_ends_are_near() -> None:
    pairs: list[tuple[timestamps.Span, timestamps.Span | None]] = [
        ((0.0, 1.0), (0.25, 1.25)),  # both near
        ((1.0, 2.0), (1.0, 2.5)),  # the end is off by 0.5 s
        ((3.0, 4.0), (2.5, 4.0)),  # the start is
        ((5.0, 6.0), None),
    ]
    found = timestamps.score(pairs, within_s=0.3)
    assert (found["segments"], found["unmatched"], found["within"], found["share_within"]) == (4, 1, 1, 0.25)
    assert found["start_error_median_s"] == 0.25 and found["end_error_median_s"] == 0.25
    assert found["end_error_p95_s"] == pytest.approx(0.475)  # 0.25 + 0.9 * (0.5 - 0.25)
    assert timestamps.score([])["share_within"] is None
    assert timestamps.score([((0.0, 1.0), None)])["start_error_median_s"] is None


@pytest.mark.parametrize(
    "agreed, drafted, passes",
    [
        ("111011", 1, 3),  # 11 | 10 | 11
        ("111011", 2, 3),  # 111 | 0 | 11
        ("000", 5, 3),
        ("11111", 5, 1),
        ("111111", 5, 1),  # the sixth is the model's own
        ("1111111", 5, 2),
        ("10110", 3, 2),  # 10 | 110
        ("", 3, 0),
    ],
)
def test_passes_of_speculative_decoding(agreed: str, drafted: int, passes: int) -> None:
    assert agreement.verifications([mark == "1" for mark in agreed], drafted) == passes


def test_agreement_is_summed_over_windows_before_dividing() -> None:
    found = agreement.score([[True, True, False], [False]])
    assert (found["positions"], found["agreed"], found["share"]) == (4, 2, 0.5)
    assert found["tokens_per_verification"]["1"] == 4 / 3
    assert found["tokens_per_verification"]["2"] == found["tokens_per_verification"]["5"] == 2
    assert agreement.score([])["share"] is None


def test_the_draft_proposes_what_the_text_before_makes_it_propose(
    few: Subject, transcripts: words.Transcripts
) -> None:
    draft = drafts.load(CHECKPOINT, few.loaded.model)
    clip = few.clips[0]
    tokens = transcripts.tokens[clip.source][0]
    features = few.features(clip.windows())
    said = agreement.proposals(few.loaded, draft, features, tokens)
    assert len(said) == len(tokens)
    assert said[:7] == agreement.proposals(few.loaded, draft, features, tokens[:7])
    assert not set(said) & set(few.loaded.suppress)
    measured = agreement.measure(few, transcripts.tokens)
    plain, timed = measured["without_timestamps"], measured["with_timestamps"]
    assert plain["positions"] == sum(len(t[0]) + 1 for t in transcripts.tokens.values()) < timed["positions"]
    assert min(plain["share"], timed["share"]) > 0.75


def test_the_prompt_that_asks_for_timestamps_gets_them(few: Subject) -> None:
    timed = with_timestamps(few.loaded)
    assert timed.prompt == few.loaded.prompt[:-1] and few.loaded.prompt[-1] in timed.suppress


@pytest.mark.parametrize(
    "tokens, expected",
    [
        ([], (0, 0)),
        ([1, 2, 3], (3, 1)),
        ([1, 2, 2, 2, 3], (1, 3)),
        ([5, 1, 2, 3, 1, 2, 3, 1, 2], (3, 2)),  # the third time is not whole
        ([1, 2, 1, 2, 1, 2, 1, 2], (2, 4)),
    ],
)
def test_the_longest_run_of_a_repeated_group(tokens: Sequence[int], expected: tuple[int, int]) -> None:
    assert robustness.longest_run(tokens) == expected


def test_sounds_without_speech_repeat_themselves_and_fit() -> None:
    first, again, other = robustness.signals(1), robustness.signals(1), robustness.signals(2)
    for name, samples in first.items():
        assert samples.shape == (480_000,) and samples.dtype == torch.float32 and samples.abs().max() <= 1
        assert samples.equal(again[name])
    assert not first["digital silence"].any()
    assert not first["music"].equal(other["music"])
    level = {name: 20 * samples.square().mean().sqrt().log10().item() for name, samples in first.items()}
    assert level["faint white noise (-60 dBFS)"] == pytest.approx(-60, abs=0.1)
    assert level["loud white noise (-12 dBFS)"] == pytest.approx(-12, abs=0.2)


def test_silence_is_known_as_such(few: Subject) -> None:
    features = few.features(robustness.signals(0)["digital silence"][None].numpy())
    assert robustness.no_speech(few, features) > 0.9
    assert robustness.no_speech(few, few.features(few.clips[0].windows())) < 0.1


def test_a_model_that_has_nothing_but_words_is_measured_by_those(
    configure: Callable[..., DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, sound, out = tmp_path / "model", tmp_path / "sound", tmp_path / "found.json"
    cfg = configure("baseline", "model.shape.max_target_positions=32").model
    models.load(cfg, "sdpa", "en", "cpu", None).model.save_pretrained(model)
    known = WordLevel({f"w{token}": token for token in range(1024)}, unk_token="w0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(known)).save_pretrained(model)
    sound.mkdir()
    shutil.copy(CLIPS / "harbour.flac", sound)
    arguments = ["--model", str(model), "--audio", str(sound), "--device", "cpu", "--json", str(out)]
    assert main(arguments) == ExitCode.OK
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "no sound file has its words beside it" in printed
    for part, reason in (("timestamps", "no segments.json"), ("draft", "without a draft.safetensors")):
        assert reason in found[part]["skipped"] and f"{part} skipped: " in printed
    assert "skipped" in found["transformers"] and len(found["robustness"]["signals"]) == 7
    assert all(row["without_timestamps"]["endless"] for row in found["robustness"]["signals"])
    assert str(tmp_path) not in out.read_text()


def _without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names]  # type: ignore[return-value]


def _cut(folder: Path) -> None:
    whole = (CHECKPOINT / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        shutil.rmtree,
        _cut,
        _without("model.safetensors"),
        _without("generation_config.json"),
        _without("config.json"),
        _without("tokenizer.json", "tokenizer_config.json"),
    ],
    ids=["missing", "truncated", "no weights", "no generation config", "no config", "no tokenizer"],
)
def test_a_bad_folder_is_refused_in_one_line(
    spoil: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINT, folder)
    spoil(folder)
    assert main(["--model", str(folder), "--device", "cpu"]) == ExitCode.INPUT
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2 and str(folder) in said[0] and said[1].startswith("  try: --model")


def test_other_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--audio", str(tmp_path / "none")]) == ExitCode.INPUT
    assert "--audio" in capsys.readouterr().err
    assert main(["--json", str(tmp_path)]) == ExitCode.STORAGE, "before minutes of measuring"
    assert f"{tmp_path} is a folder" in capsys.readouterr().err
    shutil.copy(HELD_OUT / "05_room.ogg", tmp_path)
    (tmp_path / TRUTH_FILE).write_text('{"05_room.ogg": {"segments": [[0, 1]]}}')
    assert main(["--audio", str(tmp_path)]) == ExitCode.INPUT
    assert TRUTH_FILE in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == ExitCode.MACHINE
    assert "doctor" in capsys.readouterr().err
