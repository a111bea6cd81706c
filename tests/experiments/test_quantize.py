"""Quantised decoders hear the same words, leave the checkpoint's modules alone, and can be captured."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from rapidfuzz.distance import Levenshtein
from torch import nn

from experiments import quantize, word_errors
from experiments.bundled import CHECKPOINT, HELD_OUT
from experiments.evaluate.subject import LANGUAGE, Greedy, Subject, open_subject
from experiments.options import Options
from experiments.quantize import Int8Linear
from experiments.static_decoder import StaticDecoder
from experiments.static_loop import StaticLoop
from harness.errors import UserError
from harness.phases import HostTimer, PhaseClock, SilentAnnotator
from tests.experiments.conftest import CLIPS

pytestmark = pytest.mark.xdist_group("quantize")  # what they share is made once

HELD = sorted(file.stem for file in HELD_OUT.glob("*.txt"))[1::3]  # enough for one hard word not to decide
QUANTIZED = [how for how in quantize.HOW if how != "none"]
# Least share of tokens that stay, and how much the word error rate may change.
BOUNDS = {"int8": (0.99, 0.005), "int8_dynamic": (0.98, 0.005), "float8": (0.98, 0.007)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled clips and some that the checkpoint never heard."""
    made = tmp_path_factory.mktemp("clips")
    for file in [*CLIPS.iterdir(), *(f for name in HELD for f in HELD_OUT.glob(f"{name}.*"))]:
        if file.is_file():
            shutil.copy(file, made)
    return made


def opened(folder: Path, how: str) -> Subject:
    subject = open_subject(str(CHECKPOINT), folder, "cpu")
    return dataclasses.replace(subject, greedy=Greedy(subject.loaded, "cpu", how))


def heard(subject: Subject) -> dict[str, list[int]]:
    """Tokens by clip; each fits into one window."""
    return {c.source: subject.greedy(subject.features(c.windows())) for c in subject.one_window()}


def wer(subject: Subject, tokens: dict[str, list[int]]) -> float:
    normalize = word_errors.normalizer_for(LANGUAGE)
    pairs = [
        (normalize(subject.loaded.text(tokens[clip.source])), normalize(clip.reference))
        for clip in subject.one_window()
    ]
    return word_errors.count_errors(pairs).wer


@pytest.fixture(scope="module")
def baseline(folder: Path) -> tuple[dict[str, list[int]], float]:
    subject = opened(folder, "none")
    tokens = heard(subject)
    return tokens, wer(subject, tokens)


@pytest.mark.slow
@pytest.mark.parametrize("how", QUANTIZED)
def test_words_and_tokens_stay(how: str, folder: Path, baseline: tuple[dict[str, list[int]], float]) -> None:
    expected, expected_wer = baseline
    least_same, most_change = BOUNDS[how]
    subject = opened(folder, how)
    found = heard(subject)
    assert abs(wer(subject, found) - expected_wer) <= most_change
    # Edits rather than unequal positions: a word that is spelt with a token more would shift all that follow.
    count = sum(len(tokens) for tokens in expected.values())
    edits = sum(Levenshtein.distance(tokens, found[clip]) for clip, tokens in expected.items())
    assert count > 200 and edits <= (1 - least_same) * count, f"{edits} edits in {count} tokens"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_int8_weights_are_at_most_half_a_step_off(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 50, dtype=dtype)
    linear.requires_grad_(False)
    layer = quantize.quantized(linear, "int8")
    step = layer.scale.double()
    off = (layer.qdata.double() * step - linear.weight.double()).abs() / step
    # The scale is rounded, too: by up to half a bit of the dtype, 127 steps from zero.
    assert float(off.max()) <= 0.5 + 128 * torch.finfo(dtype).eps
    assert float(off.max()) > 0.4, "no rounding at all would mean other weights"
    assert layer.qdata.dtype == torch.int8 and layer.scale.shape == (50, 1)


def test_all_layers_of_a_step_are_quantised_and_the_rest_is_not(folder: Path) -> None:
    subject = opened(folder, "none")
    model = subject.loaded.model
    decoder = StaticDecoder(model.get_decoder(), "sdpa")
    before = {name: p.clone() for name, p in model.named_parameters()}
    linears = {name for name, m in decoder.named_modules() if isinstance(m, nn.Linear)}
    quantize.apply(decoder, "int8", "cpu")
    left = {name for name, m in decoder.named_modules() if isinstance(m, nn.Linear)}
    assert left == {"cross.project"}
    assert {n for n, m in decoder.named_modules() if isinstance(m, Int8Linear)} == linears - left
    assert isinstance(decoder.head, Int8Linear) and decoder.embed.weight.dtype == torch.float32
    assert all(
        type(p.data) is torch.Tensor and torch.equal(p, before[n]) for n, p in model.named_parameters()
    )


@pytest.mark.filterwarnings("ignore:.*PlainLayout")
@pytest.mark.parametrize("how", ["int8", "int8_dynamic"])
def test_our_layer_gives_what_torchao_gives(how: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 50)
    theirs = copy.deepcopy(linear)
    quantize.quantize_(theirs, quantize._CONFIGS[how]())
    x = torch.randn(2, 3, 96)
    torch.testing.assert_close(quantize.quantized(linear, how)(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", QUANTIZED)
def test_quantised_layers_compile_without_a_graph_break(how: str) -> None:
    layer = quantize.quantized(nn.Linear(32, 10), how)
    x = torch.randn(1, 2, 32)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("how", QUANTIZED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_of_zeros_stays_one(how: str, dtype: torch.dtype) -> None:
    """Random models have them in place of special tokens, and all get them below the vocabulary."""
    linear = nn.Linear(32, 6, bias=False, dtype=dtype).requires_grad_(False)
    linear.weight[2] = 0.0
    x = torch.randn(3, 32, dtype=dtype)
    found = quantize.quantized(linear, how)(x)
    assert (found[:, 2] == 0).all()
    torch.testing.assert_close(found, linear(x), rtol=0.1, atol=0.1)


def test_another_way_to_quantise_is_refused(folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        opened(folder, "int4")
    assert "quantize=int4" in str(refused.value) and "int8_dynamic" in refused.value.report()


@pytest.mark.gpu
@pytest.mark.parametrize("how", QUANTIZED)
def test_a_captured_quantised_step_gives_the_tokens_of_an_uncaptured_one(how: str) -> None:
    subject = open_subject(str(CHECKPOINT), CLIPS / "harbour.flac", "cuda")
    options = Options(attention="sdpa", decoder="static", quantize=how)
    features = subject.features(subject.one_window()[0].windows())
    clock = PhaseClock(HostTimer(), SilentAnnotator())
    (expected,) = StaticLoop(subject.loaded, options, "cuda").decode(features, clock)
    assert len(set(expected)) > 8
    captured = StaticLoop(subject.loaded, dataclasses.replace(options, graphs="manual"), "cuda")
    assert [captured.decode(features, clock) for _ in range(5)] == [[expected]] * 5
