"""Kernel names that a person can read, and what they say about the attention in use."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.trace import Trace

if TYPE_CHECKING:
    from analysis.accounting import Account

# Names that say nothing without the class or the template argument they come with.
_GENERIC = {"kernel", "Kernel", "Kernel2", "run", "device_kernel"}

# What an elementwise or reduction template is instantiated with, in PyTorch's spelling.
_OPERATION = re.compile(
    r"(?:CUDAFunctor\w*?_(?P<a>\w+)|(?P<b>\w+?)(?:_kernel_cuda|_kernel_impl|CUDAKernelImpl|_cuda_out)\b"
    r"|launch_(?P<c>clamp)_scalar|(?P<d>compare)_scalar_kernel|\b(?P<e>(?![AB]?Unary|Binary)\w+?)Functor\b"
    r"|\b(?P<f>\w+?)Ops<|(?P<g>NonZero)Op\b)"
)
_TEMPLATES_WITH_OPERATION = re.compile(r"elementwise_kernel|reduce_kernel|DeviceReduce")

# First match wins: flash attention of PyTorch and of its author, cuDNN's fused attention, xFormers' kernels.
_ATTENTION = {
    "flash": re.compile(r"flash_fwd|flash::|pytorch_flash|flash_bwd"),
    "cudnn": re.compile(r"cudnn\w*sdpa", re.IGNORECASE),
    "efficient": re.compile(r"fmha_cutlass|mem_efficient|AttentionKernel"),
    "math": re.compile(r"softmax", re.IGNORECASE),
}


@lru_cache(maxsize=100_000)
def short_name(name: str) -> str:
    """A kernel's name without types and arguments; PyTorch's templates keep the operation in them.

    `void at::native::elementwise_kernel<(int)128, at::native::CUDAFunctor_add<c10::Half>>(int)` becomes
    `elementwise_kernel [add]`.
    """
    if not name or name.startswith(("[", "(", "<")):
        return name or "(unnamed kernel)"
    bare = _without_brackets(name)
    path = bare.split()[-1].split("::") if bare.split() else [name]
    base = path[-1] or name
    if base in _GENERIC:
        argument = re.search(rf"\b{base}<\s*(?:struct |class )?(cutlass_?\w+|\w*gemm\w*)", name)
        base = argument[1] if argument else "::".join(part for part in path[-2:] if part)
    if _TEMPLATES_WITH_OPERATION.search(base) and (found := _OPERATION.search(name)):
        operation = next(group for group in found.groups() if group)
        return f"{base} [{operation.removeprefix('direct_').lower()}]"
    return base


def shorten(names: pd.Series) -> pd.Categorical:
    """Short names for a categorical column; each distinct name is parsed once."""
    full = pd.Categorical(names)
    labels, short = pd.factorize(np.array([short_name(name) for name in full.categories], dtype=object))
    return pd.Categorical.from_codes(np.append(labels, -1)[full.codes], pd.Index(short))


def kernel_table(
    names: pd.Categorical, phase: pd.Categorical, work: pd.DataFrame, busy_ns: int
) -> pd.DataFrame:
    """One row per short name and kind, the most expensive first.

    Columns: name, kind, count, total_ns, median_ns, busy_share (total / busy_ns of all devices: overlapping
    kernels count in full, so the shares may add up to more than 1), phases (joined by commas).
    """
    duration = work["end_ns"] - work["start_ns"]
    frame = pd.DataFrame({"name": names, "kind": work["kind"], "dur_ns": duration, "phase": phase})
    by = ["name", "kind"]
    groups = frame.groupby(by, observed=True, sort=False)["dur_ns"]
    table = groups.agg(count="size", total_ns="sum", median_ns="median").reset_index()
    table["busy_share"] = table["total_ns"] / busy_ns if busy_ns else 0.0
    seen = frame.dropna(subset="phase").drop_duplicates([*by, "phase"])
    joined = seen.groupby(by, observed=True)["phase"].agg(lambda one: ", ".join(sorted(one)))
    table = table.join(joined.rename("phases"), on=by)
    table["phases"] = table["phases"].astype(object).fillna("")
    order = ["total_ns", "name", "kind"]
    return table.astype({"name": str, "kind": str}).sort_values(
        order, ascending=[False, True, True], ignore_index=True
    )


def attention_backends(source: Account | Trace) -> dict[str, int]:
    """Launches per attention backend, told by kernel names.

    flash, cudnn and efficient are fused attention. `math` counts softmax kernels, the sign of attention in
    separate steps; a softmax outside attention (over the vocabulary, say) counts there as well.
    """
    if isinstance(source, Trace):
        launches = source.work["name"].value_counts()
    else:
        launches = source.kernels.groupby("name")["count"].sum()
    counts = dict.fromkeys(_ATTENTION, 0)
    for name, count in launches.items():
        backend = next((key for key, pattern in _ATTENTION.items() if pattern.search(str(name))), None)
        if backend:
            counts[backend] += int(count)
    return counts


def _without_brackets(name: str) -> str:
    """The name without template arguments, parameters and `(anonymous namespace)::`."""
    depth, kept = 0, []
    for character in name.replace("operator()", "operator").replace("->", ""):
        depth += character in "<(["
        if depth == 0:
            kept.append(character)
        depth -= character in ">)]"
    return "".join(kept)
