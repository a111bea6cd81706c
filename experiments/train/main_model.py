"""Training the model itself: cross-entropy on the tokens, and CTC on the encoder while it helps."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from experiments.attention import kernels
from experiments.train.loop import Heard
from experiments.train.model import BLANK, Decode, Encode
from experiments.train.recipe import Stage
from experiments.train.windows import IGNORED


class Trainee(torch.nn.Module):
    """The model and the CTC head that teaches its encoder where the words are; the head is thrown away."""

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.ctc_head = torch.nn.Linear(model.config.d_model, BLANK + 1)
        self._passes = (Encode(model), Decode(model))  # a tuple, so that its parameters don't count twice
        self._older_graphs: list[tuple[Encode, Decode]] = []

    def begin(self, heard: Heard) -> None:
        """Capture both passes, forward and backward, as CUDA graphs for batches shaped like `heard`.

        Launched one by one their thousand kernels take the host longer than the GPU.
        """
        if not heard.mel.is_cuda:
            return
        # Graphs of earlier stages are kept: torch 2.11 fails where one is freed and another is captured.
        self._older_graphs.append(self._passes)
        encoder, decoder = Encode(self.model), Decode(self.model)
        with kernels("sdpa", "cuda"):
            encoded = encoder(heard.mel).detach().requires_grad_()
            samples = ((heard.mel.clone(),), (encoded, heard.batch["ids"].clone()))
            self._passes = torch.cuda.make_graphed_callables((encoder, decoder), samples)

    def loss(self, heard: Heard, stage: Stage, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Token loss + weight * CTC loss (Kim et al. 2017, arXiv 1609.06773), and both as parts."""
        encoder, decoder = self._passes
        with kernels("sdpa", heard.mel.device.type):
            encoded = encoder(heard.mel)
            logits = decoder(encoded, heard.batch["ids"])
        targets = heard.batch["targets"]
        tokens = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED
        )
        scored = targets != IGNORED
        right = ((logits.argmax(-1) == targets) & scored).sum() / scored.sum()
        parts = {"loss": tokens, "accuracy": right}
        first, last = stage.ctc
        weight = first + (last - first) * share
        if weight <= 0:
            return tokens, parts
        parts["ctc"] = self._ctc(encoded, heard.batch)
        return tokens + weight * parts["ctc"], parts

    def _ctc(self, encoded: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean negative log-likelihood per text token, over the windows whose text is whole."""
        log_probs = self.ctc_head(encoded).float().log_softmax(-1).transpose(0, 1)
        frames = torch.full((encoded.shape[0],), encoded.shape[1])
        losses = functional.ctc_loss(
            log_probs,
            batch["ctc"],
            frames,
            batch["ctc_length"],
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        counted = batch["ctc_counts"]
        lengths = batch["ctc_length"].clamp(min=1).to(losses.device, non_blocking=True)
        return (losses * counted / lengths).sum() / counted.sum().clamp(min=1)
