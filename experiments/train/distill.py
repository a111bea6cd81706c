"""Training the draft: it learns to say what its model says, on windows like those of the model's training."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import WhisperForCausalLM, WhisperForConditionalGeneration

from experiments.attention import kernels
from experiments.draft import own_parameters
from experiments.train.loop import Heard
from experiments.train.model import Decode, Encode
from experiments.train.recipe import Stage
from experiments.train.windows import IGNORED


class Pupil(torch.nn.Module):
    """The draft's own parameters, as what is trained and saved; its model is frozen."""

    def __init__(self, draft: WhisperForCausalLM, model: WhisperForConditionalGeneration) -> None:
        super().__init__()
        # A tuple makes them no submodules: what the draft shares with its model is not trained or saved.
        self._passes = (Encode(model), Decode(model), Decode(draft))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        own = own_parameters(draft, model)
        self.own = torch.nn.ParameterDict({name.replace(".", "/"): p for name, p in own.items()})

    def begin(self, heard: Heard) -> None:
        """Nothing is captured: one layer is launched fast enough."""

    def loss(self, heard: Heard, stage: Stage, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """KL divergence from the model's distribution (Hinton et al. 2015, arXiv 1503.02531), temperature 1.

        `agreement` is the share of positions where both would choose the same token.
        """
        encoder, teacher, draft = self._passes
        ids, scored = heard.batch["ids"], heard.batch["targets"] != IGNORED
        with kernels("sdpa", heard.mel.device.type):
            with torch.no_grad():
                encoded = encoder(heard.mel)
                wanted = teacher(encoded, ids)[scored].float()
            said = draft(encoded, ids)[scored].float()
        loss = functional.kl_div(
            said.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True
        )
        agreement = (said.argmax(-1) == wanted.argmax(-1)).float().mean()
        return loss, {"loss": loss, "agreement": agreement}
