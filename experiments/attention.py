"""Which attention runs: the option's name for transformers, and the kernels that PyTorch may choose."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch.nn.attention import SDPBackend, sdpa_kernel


def implementation(attention: str) -> str:
    """The option as transformers' `attn_implementation`."""
    return "eager" if attention == "eager" else "sdpa"


def kernels(attention: str, device: str) -> AbstractContextManager[None]:
    """Hold SDPA to FlashAttention for `attention=flash`.

    On the CPU the math kernel is allowed beside it: there is no flash kernel for every dtype there.
    """
    if attention != "flash":
        return nullcontext()
    backends = [SDPBackend.FLASH_ATTENTION]
    if device == "cpu":
        backends.append(SDPBackend.MATH)
    return sdpa_kernel(backends)
