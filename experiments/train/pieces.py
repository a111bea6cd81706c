"""The pieces of a training run, in order, each skipped if an earlier call did it."""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from experiments import draft as drafts
from experiments.audio import SAMPLE_RATE_HZ
from experiments.train import record
from experiments.train.corpus import Pool, make_pool
from experiments.train.distill import Pupil
from experiments.train.export import export
from experiments.train.loop import Feed, Loop, Student
from experiments.train.main_model import Trainee
from experiments.train.model import new_model
from experiments.train.recipe import RECIPES, Recipe, Stage
from experiments.train.text import training_sentence
from experiments.train.tokens import train_tokenizer
from experiments.train.windows import Windows
from harness.errors import UserError

TOKENIZER_SENTENCES = 30_000
_AFTER = ("card.py", "curve.py", "heldout.py", "record.py", "__main__.py")  # what they do changes no weight


def train(recipe_name: str, work: Path, out: Path, until: float, device: str | None = None) -> bool:
    """Train model and draft into `out`; False if the clock (`time.monotonic`) passed `until` before the end.

    work: state and curves of this recipe; a finished run's are kept, so delete it to train anew.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    recipe, pieces = RECIPES[recipe_name], _Pieces(work, device)
    _claim(work, recipe)
    trained = work / "checkpoint"
    if not (trained / "model.safetensors").exists() and not pieces.model(recipe, trained, until):
        return False
    if not (trained / drafts.FILE_NAME).exists() and not pieces.draft(recipe, trained, until):
        return False
    if not (trained / record.FILE_NAME).exists():
        record.write_record(trained, work, recipe, record.origin_here(device))
    out.mkdir(parents=True, exist_ok=True)
    for file in trained.iterdir():
        shutil.copyfile(file, out / file.name)
    return True


def _claim(work: Path, recipe: Recipe) -> None:
    """Remember in `work` what is trained there: going on with another recipe or other code mixes two runs."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources if source.name not in _AFTER))
    claim = f"{recipe}\n{code.hexdigest()}\n"
    path = work / "made_from.txt"
    if path.exists() and path.read_text() != claim:
        raise UserError(
            f"{work} holds a training run of another recipe or of other code in experiments/train",
            f"rm -r {work} to train anew, or another --work",
        )
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(claim)


class _Pieces:
    def __init__(self, work: Path, device: str) -> None:
        self._work, self._device = work, device
        self._dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self._began = time.monotonic()
        torch.set_float32_matmul_precision("high")  # the spectrogram's product; the rest is bf16
        torch.backends.cudnn.benchmark = True  # the two convolutions keep their shapes through a stage

    def _say(self, what: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {what}", flush=True)

    def model(self, recipe: Recipe, trained: Path, until: float) -> bool:
        rng = random.Random(recipe.seed)
        tokenizer = train_tokenizer(training_sentence(rng) for _ in range(TOKENIZER_SENTENCES))
        self._say("tokenizer trained")
        feed = self._feed(recipe.hours, recipe.seed, tokenizer)
        torch.manual_seed(recipe.seed)
        trainee = Trainee(new_model(recipe)).to(self._device, self._dtype).train()
        loop = self._loop(recipe, "model", recipe.stages, feed, trainee)
        if not loop.run(until, self._say):
            return False
        export(trainee.model, tokenizer, trained)
        return True

    def draft(self, recipe: Recipe, trained: Path, until: float) -> bool:
        tokenizer = WhisperTokenizer.from_pretrained(trained)
        model = WhisperForConditionalGeneration.from_pretrained(trained, attn_implementation="sdpa")
        model = model.to(self._device, self._dtype)
        feed = self._feed(recipe.draft_hours, recipe.seed + 1, tokenizer)
        torch.manual_seed(recipe.seed + 1)
        draft = drafts.new_draft(model, recipe.draft_ffn_dim).train()
        pupil = Pupil(draft, model)
        loop = self._loop(recipe, "draft", (recipe.draft_stage,), feed, pupil)
        if not loop.run(until, self._say):
            return False
        drafts.save(draft, model, trained)
        return True

    def _loop(
        self,
        recipe: Recipe,
        name: str,
        stages: tuple[Stage, ...],
        feed: Feed,
        student: Student,
    ) -> Loop:
        rate = recipe.peak_learning_rate if name == "model" else recipe.draft_learning_rate
        return Loop(
            stages,
            feed,
            student,
            self._work / name,
            rate,
            recipe.warmup_steps,
            recipe.weight_decay,
        )

    def _feed(self, hours: float, seed: int, tokenizer: WhisperTokenizer) -> Feed:
        pool = make_pool(hours, seed)
        seconds = pool.lengths / SAMPLE_RATE_HZ
        few, median_s, many = np.quantile(seconds, (0.05, 0.5, 0.95))
        self._say(
            f"{pool.hours:.1f} h of speech, {len(seconds)} sentences of "
            f"{median_s:.1f} s (5%: {few:.1f} s, 95%: {many:.1f} s)"
        )
        tokens = _tokenize(pool, tokenizer)
        self._say(f"{sum(map(len, tokens)) / seconds.sum() * 30:.0f} text tokens in 30 s of speech")
        samples = torch.from_numpy(pool.samples).to(self._device)
        self._say("corpus on the device")
        return Feed(samples, Windows(pool, tokens), seed, self._dtype)


def _tokenize(pool: Pool, tokenizer: WhisperTokenizer) -> list[list[int]]:
    texts = [f" {text}" for text in pool.texts]
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]
