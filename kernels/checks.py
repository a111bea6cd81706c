"""What a kernel that only sees pointers has to be sure of."""

from __future__ import annotations

import torch


def expect(name: str, tensor: torch.Tensor, like: torch.Tensor, dtype: torch.dtype, *shape: int) -> None:
    """Raise ValueError unless `tensor` is contiguous, of this type and shape, and on the device of `like`."""
    if tensor.shape != shape or tensor.dtype != dtype or tensor.device != like.device:
        raise ValueError(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}, "
            f"not {dtype} {list(shape)} on {like.device}"
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{name} is not contiguous")
