"""Attention by the kernel is attention by torch, within a decoder; on a CPU by the kernel's reference."""

from __future__ import annotations

import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from experiments.cache_attention import attention
from experiments.static_decoder import StaticDecoder
from harness.errors import UserError

ROWS, LENGTH = 3, 24


@pytest.fixture(scope="module")
def decoder() -> WhisperDecoder:
    config = WhisperConfig(
        vocab_size=101,
        pad_token_id=0,
        d_model=128,
        decoder_layers=2,
        decoder_attention_heads=2,
        max_source_positions=40,
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    return WhisperDecoder(config).half().eval()


@torch.inference_mode()
@pytest.mark.parametrize("prompt", [3, 12], ids=["short", "longer than the kernel takes"])
def test_prompts_and_steps_give_the_same_logits(decoder: WhisperDecoder, prompt: int) -> None:
    by_torch, by_kernel = (StaticDecoder(decoder, how, ROWS, LENGTH) for how in ("sdpa", "kernel"))
    encoded = torch.randn(ROWS, 40, 128).half()
    history = torch.randint(0, 101, (ROWS, LENGTH))
    for network in (by_torch, by_kernel):
        network.begin_window(encoded)
    # As a prefill and a round have them: views, rows at places of their own.
    places = torch.arange(LENGTH)[:prompt].expand(ROWS, prompt)
    last = torch.tensor([prompt - 1, 0, 1])
    first = [network.logits_at(history, places, last) for network in (by_torch, by_kernel)]
    torch.testing.assert_close(*first, atol=2e-2, rtol=2e-2)
    position = torch.tensor([prompt, 1, 2])
    for queries in (1, 4):
        places = position[:, None] + torch.arange(LENGTH)[:queries]
        found = [network.logits(history, places) for network in (by_torch, by_kernel)]
        assert found[0].shape == (ROWS * queries, 101)
        torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(by_torch.own_cache, by_kernel.own_cache, atol=2e-2, rtol=2e-2)


def test_other_heads_and_types_are_refused() -> None:
    for size, dtype in ((32, torch.float16), (64, torch.float32)):
        with pytest.raises(UserError, match="attention=kernel") as refused:
            attention("kernel", 2, size, dtype)
        assert "attention=sdpa" in refused.value.report()
