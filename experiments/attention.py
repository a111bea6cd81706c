"""Which attention runs: the option's name for transformers, and the kernels that PyTorch may choose."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch.nn.attention import SDPBackend, sdpa_kernel


def implementation(attention: str) -> str:
    """The option as transformers' `attn_implementation`."""
    return "eager" if attention == "eager" else "sdpa"


def kernels(attention: str, device: str) -> AbstractContextManager[None]:
    """The kernels that SDPA may choose from inside this context: for `flash`, FlashAttention alone.

    cuDNN's attention, PyTorch's first choice on Hopper, is left out: with a masked cache of constant size
    the same window gave other tokens from one call to the next (H200, torch 2.11), which the other kernels
    don't. See also pytorch issues 193893 and 196678.
    On the CPU the math kernel stands beside flash: there is no flash kernel for every dtype there.
    """
    if attention == "eager":
        return nullcontext()
    backends = [SDPBackend.FLASH_ATTENTION]
    if attention in ("sdpa", "kernel"):
        backends += [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    elif device == "cpu":
        backends.append(SDPBackend.MATH)
    return sdpa_kernel(backends)
