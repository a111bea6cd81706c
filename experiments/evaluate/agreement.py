"""How often the draft proposes what its model chooses, and what speculative decoding would make of it.

Along the model's own greedy tokens the draft is given what speculative decoding gives it: the accepted text.
What it proposes there is therefore what it would propose, and counting is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import WhisperForCausalLM

from experiments import draft as drafts
from experiments.attention import kernels
from experiments.evaluate.subject import Greedy, Skipped, Subject, with_timestamps
from experiments.models import LoadedModel

MOST_DRAFTED = 5


def verifications(agreed: Sequence[bool], drafted: int) -> int:
    """Passes of the model that speculative greedy decoding takes for one window.

    agreed: at each position of the model's tokens (end token included), whether the draft would propose that
    token. Each pass checks `drafted` proposals: it yields those before the first wrong one, and one token of
    the model's own behind them.
    """
    position = passes = 0
    while position < len(agreed):
        accepted = 0
        while accepted < drafted and position + accepted < len(agreed) and agreed[position + accepted]:
            accepted += 1
        position += accepted + 1
        passes += 1
    return passes


def score(windows: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Agreement over all positions of all windows, and tokens per verification for 1 to 5 drafted tokens."""
    positions = sum(map(len, windows))
    agreed = sum(map(sum, windows))
    passes = {k: sum(verifications(w, k) for w in windows) for k in range(1, MOST_DRAFTED + 1)}
    return {
        "positions": positions,
        "agreed": agreed,
        "share": agreed / positions if positions else None,
        "tokens_per_verification": {str(k): positions / n if n else None for k, n in passes.items()},
    }


@torch.inference_mode()
def proposals(
    loaded: LoadedModel, draft: WhisperForCausalLM, features: torch.Tensor, tokens: list[int]
) -> list[int]:
    """What the draft chooses at each position of `tokens`, given those before, under the model's suppression.

    features: [1, n_mels, 3000].
    """
    ids = torch.tensor([[*loaded.prompt, *tokens[:-1]]], device=features.device)
    with kernels("sdpa", features.device.type):
        encoded = loaded.model.get_encoder()(features).last_hidden_state
        logits = draft(ids, encoder_outputs=(encoded,)).logits[0, len(loaded.prompt) - 1 :]
    logits[:, list(loaded.suppress)] = -torch.inf
    logits[0, list(loaded.begin_suppress)] = -torch.inf
    return logits.argmax(-1).tolist()


def measure(subject: Subject, tokens: dict[str, list[list[int]]]) -> dict[str, Any]:
    """`without_timestamps` and `with_timestamps`, each as `score` has it.

    tokens: the model's own without timestamps, by clip and window. Skipped if there is no draft.
    """
    if subject.folder is None or not (subject.folder / drafts.FILE_NAME).exists():
        raise Skipped(f"the model comes without a {drafts.FILE_NAME}")
    draft = drafts.load(subject.folder, subject.loaded.model)
    timed = with_timestamps(subject.loaded)
    greedy = Greedy(timed, subject.device)
    plain_agreed, timed_agreed = [], []
    for clip in subject.clips:
        for window, plain in zip(clip.windows(), tokens[clip.source], strict=True):
            features = subject.features(window[None])
            plain_agreed.append(_agreed(subject.loaded, draft, features, plain))
            timed_agreed.append(_agreed(timed, draft, features, greedy(features)))
    return {"without_timestamps": score(plain_agreed), "with_timestamps": score(timed_agreed)}


def _agreed(
    loaded: LoadedModel, draft: WhisperForCausalLM, features: torch.Tensor, tokens: list[int]
) -> list[bool]:
    """Where the draft agrees with the model's tokens, the end token included if there was room for it."""
    whole = [*tokens, loaded.end][: loaded.max_new_tokens]
    said = proposals(loaded, draft, features, whole)
    return [ours == theirs for ours, theirs in zip(said, whole, strict=True)]
