"""The fast decoder against transformers' model in plain steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments import audio, models
from experiments.models import LoadedModel
from experiments.options import Options
from experiments.transcribe.alignment import Aligner
from experiments.transcribe.decoding import Decoded, Window, WindowDecoder
from experiments.transcribe.sampling import gumbel
from experiments.transcribe.static import StaticWindowDecoder
from experiments.transcribe.vocabulary import SpecialTokens, language_of
from harness.errors import UserError
from tests.experiments.conftest import CLIPS, ROOT
from tests.experiments.plain_decoder import PlainDecoder
from tests.experiments.scripted import noise

pytestmark = pytest.mark.xdist_group("transcribe_static")  # what they share is made once

STATIC = Options(attention="sdpa", decoder="static")


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    cfg = {"source": "pretrained", "name": str(ROOT / "experiments" / "checkpoint"), "new_tokens": None}
    return models.load(cfg, "sdpa", "en", "cpu", None)


@pytest.fixture(scope="module")
def decoder(loaded: LoadedModel) -> StaticWindowDecoder:
    return StaticWindowDecoder(loaded, STATIC, 4, prompt_tokens=20)


@pytest.fixture(scope="module")
def windows(loaded: LoadedModel) -> list[Window]:
    """Prompts of three lengths; sound of three lengths, one of them without speech."""
    task = language_of(loaded, "transcribe").task
    assert loaded.tokenizer is not None
    before = loaded.tokenizer.encode(" It was 61 degrees in Leeds.", add_special_tokens=False)
    prompt = (SpecialTokens.of(loaded).previous, *before, *task)
    pcm = [audio.load(CLIPS / "heldout" / name)[0].samples for name in ("20_room.ogg", "01_noise.ogg")]
    return [
        Window(pcm[0], task),
        Window(pcm[1][: 5 * audio.SAMPLE_RATE_HZ], prompt),
        Window(noise(3, 0.001), (*prompt[:3], *task)),
    ]


def decode(decoder: WindowDecoder, windows: list[Window]) -> list[Decoded]:
    return decoder.queue(windows)()


def close(ours: Decoded, theirs: Decoded) -> None:
    assert ours.tokens == theirs.tokens
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)
    assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=1e-4)


def test_rows_with_prompts_of_their_own_give_what_transformers_gives(
    loaded: LoadedModel, decoder: StaticWindowDecoder, windows: list[Window]
) -> None:
    plain = decode(PlainDecoder(loaded), windows)
    for ours, theirs in zip(decode(decoder, windows), plain, strict=True):
        close(ours, theirs)
    assert plain[0].no_speech_prob < 0.1 < 0.9 < plain[2].no_speech_prob
    close(decode(decoder, windows[1:2])[0], plain[1])


def test_the_task_is_asked_for(loaded: LoadedModel) -> None:
    plain, translated = (language_of(loaded, task).task for task in ("transcribe", "translate"))
    assert loaded.tokenizer is not None
    shown = loaded.tokenizer.convert_ids_to_tokens(list(translated))
    assert shown == ["<|startoftranscript|>", "<|en|>", "<|translate|>"]
    assert plain[:2] == translated[:2] and plain[2] != translated[2]


def test_drawing_is_repeatable_and_other_rows_don_t_matter(
    decoder: StaticWindowDecoder, windows: list[Window]
) -> None:
    hot = Window(windows[1].pcm, windows[1].prompt, temperature=1.5, seed=7)
    alone = decode(decoder, [hot])[0]
    beside, cold = decode(decoder, [hot, windows[1]])
    other = decode(decoder, [Window(hot.pcm, hot.prompt, 1.5, seed=8)])[0]
    assert alone.tokens == beside.tokens != other.tokens
    close(cold, decode(decoder, [windows[1]])[0])
    assert alone.avg_logprob < cold.avg_logprob, "what is drawn is less likely than the likeliest"


def test_a_window_that_overflows_ends_and_leaves_the_next_alone(
    decoder: StaticWindowDecoder, windows: list[Window]
) -> None:
    """In half precision a step may give NaN. What it has put into the caches stays there, behind a mask."""
    expected = decode(decoder, windows[:1])[0]
    places = decoder._prompts._network.places
    with torch.inference_mode():
        kept = places.clone()
        places[25:] = torch.nan  # behind the room for prompts
    drawn = Window(windows[0].pcm, windows[0].prompt, temperature=0.2)
    cut = [decode(decoder, [window])[0] for window in (windows[0], drawn)]
    with torch.inference_mode():
        places.copy_(kept)
    for one in cut:
        assert one.tokens == expected.tokens[: len(one.tokens)] and 5 < len(one.tokens) < 30
        assert one.avg_logprob == -np.inf, "nobody is to believe it"
    close(decode(decoder, windows[:1])[0], expected)


def test_the_noise_draws_from_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -torch.inf])
    rows = 40_000
    seeds, position = torch.arange(rows), torch.full((rows,), 3)
    drawn = (logits / 0.7 + gumbel(seeds, position, 4)).argmax(-1)
    shares = drawn.bincount(minlength=4) / rows
    assert shares.tolist() == pytest.approx((logits / 0.7).softmax(-1).tolist(), abs=0.01)
    assert not torch.equal(gumbel(seeds[:5], position[:5], 9), gumbel(seeds[:5], position[:5] + 1, 9))


def test_each_text_token_is_aligned(loaded: LoadedModel, windows: list[Window]) -> None:
    decoder = StaticWindowDecoder(loaded, STATIC, 3, prompt_tokens=20, word_timestamps=True)
    for decoded, window in zip(decode(decoder, windows), windows, strict=True):
        text = [token for token in decoded.tokens if token < loaded.end]
        assert decoded.alignment is not None and decoded.probabilities is not None
        assert decoded.alignment.shape == (len(text) + 1, -(-len(window.pcm) // 320))
        assert np.isfinite(decoded.alignment).all()
        assert ((decoded.probabilities >= 0) & (decoded.probabilities <= 1)).all()
    assert np.mean(decode(decoder, windows[:1])[0].probabilities) > 0.8


@pytest.mark.parametrize(
    ("heads", "aligning"),
    [
        ([[2, 1], [3, 0], [3, 3]], {2: [1], 3: [0, 3]}),
        ([[2, 1], [4, 0], [3, 4], [11, 6]], {2: [1]}),
        ([[7, 0], [10, 17]], {2: [0, 1, 2, 3], 3: [0, 1, 2, 3]}),
        (None, {2: [0, 1, 2, 3], 3: [0, 1, 2, 3]}),
    ],
    ids=["its own", "partly its teacher's", "its teacher's", "none"],
)
@torch.inference_mode()
def test_only_heads_that_the_decoder_has_align(
    heads: list[list[int]] | None,
    aligning: dict[int, list[int]],
    loaded: LoadedModel,
    windows: list[Window],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded.model.generation_config, "alignment_heads", heads, raising=False)
    aligner = Aligner(loaded)
    assert aligner._aligning == aligning
    encoded = torch.zeros(1, loaded.model.config.max_source_positions, loaded.model.config.d_model)
    (found,) = aligner.aligned(encoded, windows[:1], [Decoded((5, 6), -0.1, 0.0)])
    assert found.alignment is not None and found.alignment.shape[0] == 3


def test_a_model_of_random_weights_gives_exactly_as_many_tokens_as_it_is_told() -> None:
    from experiments.transcribe.transcriber import configuration

    cfg = configuration("tiny_random", "cuda_graphs")
    random = models.load(cfg["model"], "sdpa", "en", "cpu", None)
    decoder = StaticWindowDecoder(random, STATIC, 2)
    found = decode(decoder, [Window(noise(5), random.prompt[:-1]), Window(noise(9), random.prompt[:-1])])
    assert [len(decoded.tokens) for decoded in found] == [24, 24]
    with pytest.raises(UserError, match="no vocabulary"):
        language_of(random, "transcribe")


@pytest.mark.gpu
@pytest.mark.parametrize("loop", ["host", "device"])
def test_captured_rounds_draw_and_choose_in_turn(loop: str, windows: list[Window]) -> None:
    cfg = {"source": "pretrained", "name": str(ROOT / "experiments" / "checkpoint"), "new_tokens": None}
    loaded = models.load(cfg, "sdpa", "en", "cuda", None)
    options = Options("sdpa", "static", "manual", loop, topk="fused", encoder="manual")
    decoder = StaticWindowDecoder(loaded, options, 4, prompt_tokens=20, word_timestamps=True)
    cold = decode(decoder, windows)
    plain = PlainDecoder(loaded).queue(windows)()
    assert [len(one.tokens) for one in cold] == [pytest.approx(len(one.tokens), abs=2) for one in plain]
    assert [one.no_speech_prob for one in cold] == pytest.approx(
        [one.no_speech_prob for one in plain], abs=0.02
    )
    hot = [Window(window.pcm, window.prompt, 1.0, seed=3) for window in windows]
    assert [one.tokens for one in decode(decoder, hot)] == [one.tokens for one in decode(decoder, hot)]
    assert [one.tokens for one in decode(decoder, windows)] == [one.tokens for one in cold]


@pytest.mark.gpu
def test_windows_may_be_handed_over_before_the_ones_before_are_collected(windows: list[Window]) -> None:
    cfg = {"source": "pretrained", "name": str(ROOT / "experiments" / "checkpoint"), "new_tokens": None}
    loaded = models.load(cfg, "sdpa", "en", "cuda", None)
    options = Options("sdpa", "static", "manual", "device", topk="fused", encoder="manual")
    decoder = StaticWindowDecoder(loaded, options, 3, prompt_tokens=20)
    one_by_one = [decode(decoder, [window])[0].tokens for window in windows]
    collects = [decoder.queue([window]) for window in windows]
    assert [collect()[0].tokens for collect in collects] == one_by_one
