"""How sure a greedy choice was: the distance between the best and the second-best logit."""

from __future__ import annotations

import torch

from experiments.attention import kernels
from experiments.models import LoadedModel


@torch.inference_mode()
def margins(loaded: LoadedModel, features: torch.Tensor, tokens: list[int]) -> list[float]:
    """Best minus second-best allowed logit at each position of `tokens`, and at the one after them.

    One teacher-forced pass of the transformers model, whichever decoder chose the tokens: where two decoders
    part, a margin near the rounding of the dtype says that either choice was as good. The last margin is that
    of the end token.
    features: [1, n_mels, 3000].
    """
    prompt = len(loaded.prompt)
    ids = torch.tensor([[*loaded.prompt, *tokens]], device=features.device)
    # Any kernel that repeats itself will do: what `attention` holds a decode step to is not at stake here.
    with kernels("sdpa", features.device.type):
        logits = loaded.model(features, decoder_input_ids=ids).logits[0, prompt - 1 :].float()
    logits[:, list(loaded.suppress)] = -torch.inf
    logits[0, list(loaded.begin_suppress)] = -torch.inf
    best = logits.topk(2, dim=-1).values
    return [round(margin, 5) for margin in (best[:, 0] - best[:, 1]).tolist()]
