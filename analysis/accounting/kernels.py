"""Kernel names that a person can read, and what they say about the attention in use."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.engine.compiled import loop_for
from analysis.engine.grouping import BLOCK_ROWS, Groups, blocks, duration_type, tally
from analysis.engine.intervals import Ints

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
ATTENTION_COLUMNS = [f"attention_{backend}" for backend in _ATTENTION]


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


def shorten(names: pd.Series | pd.Categorical) -> pd.Categorical:
    """Short names for a categorical column; each distinct name is parsed once."""
    full = pd.Categorical(names)
    labels, short = pd.factorize(np.array([short_name(name) for name in full.categories], dtype=object))
    table = np.append(labels, -1).astype(np.min_scalar_type(-len(short) - 1))
    return pd.Categorical.from_codes(table[full.codes], pd.Index(short))


def kernel_table(
    names: pd.Categorical, phase: pd.Categorical, work: pd.DataFrame, busy_ns: int
) -> pd.DataFrame:
    """One row per short name, shape and kind, the most expensive first.

    Columns: name, shape, kind, count, total_ns, median_ns, busy_share (total / busy_ns of all devices:
    overlapping kernels count in full, so the shares may add up to more than 1), phases (a tuple of names).
    """
    columns = {"name": names, "shape": work["shape"].array, "kind": work["kind"].array}
    groups = Groups()
    code = groups.encode(*(column.codes for column in columns.values()))
    if len(groups.rows) < 1 << 15:
        code = code.astype(np.int16)  # whatever their number, one type for the compiled loop
    rows = np.array(groups.rows, dtype=np.int64).reshape(-1, len(columns)).T
    table = pd.DataFrame(
        {key: column.categories[row] for (key, column), row in zip(columns.items(), rows, strict=True)}
    )
    table["count"] = tally(code, len(table))
    times = work["start_ns"].to_numpy(), work["end_ns"].to_numpy()
    of_each = np.split(_by_code(code, *times, table["count"].to_numpy()), np.cumsum(table["count"])[:-1])
    table["total_ns"] = np.array([one.sum(dtype=np.int64) for one in of_each[: len(table)]], dtype=np.int64)
    table["median_ns"] = np.array([np.median(one) for one in of_each[: len(table)]], dtype=float)
    table["busy_share"] = table["total_ns"] / busy_ns if busy_ns else 0.0
    seen = np.zeros((len(table), len(phase.categories) + 1), dtype=bool)
    seen[code, phase.codes] = True  # the last column: in no phase
    table["phases"] = [tuple(sorted(phase.categories[row[:-1]])) for row in seen]
    order = ["total_ns", "name", "shape", "kind"]
    return table.sort_values(order, ascending=[False, True, True, True], ignore_index=True)


def _by_code(code: np.ndarray, start_ns: Ints, end_ns: Ints, count: Ints) -> np.ndarray:
    """The durations ordered by code, the first code's first."""
    ordered = np.empty(len(code), dtype=duration_type(start_ns, end_ns))
    loop_for(_place, len(code))(code, start_ns, end_ns, np.cumsum(count) - count, ordered)
    return ordered


def _place(code: np.ndarray, start: Ints, end: Ints, place: Ints, into: np.ndarray) -> None:
    for row in range(len(start)):
        into[place[code[row]]] = end[row] - start[row]
        place[code[row]] += 1


def is_kernel(work: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which work is a kernel, or a graph of kernels: shape [work]."""
    kinds = work["kind"].array
    return np.asarray(kinds.categories.isin(["kernel", "graph"]))[kinds.codes]


def attention_counts(names: pd.Categorical, group: npt.NDArray[np.integer], groups: int) -> pd.DataFrame:
    """Kernels per group and attention backend: shape [groups, backends], columns as in ATTENTION_COLUMNS.

    `names` are full ones: a short name may have lost what gives the backend away. flash, cudnn and efficient
    are fused attention. `math` is softmax kernels, the sign of attention in separate steps; a softmax outside
    attention (over the vocabulary, say) counts there as well.
    """
    backend = [
        next((code for code, pattern in enumerate(_ATTENTION.values()) if pattern.search(name)), -1)
        for name in names.categories
    ]
    of_name, backends = np.array([*backend, -1]), len(_ATTENTION)
    counts = np.zeros((groups, backends), dtype=np.int64)
    for block in blocks(len(group), max(BLOCK_ROWS, groups)):
        of_row = of_name[names.codes[block]]
        known = of_row >= 0
        cell = group[block][known].astype(np.int64) * backends + of_row[known]
        counts += np.bincount(cell, minlength=groups * backends).reshape(groups, backends)
    return pd.DataFrame(counts, columns=ATTENTION_COLUMNS)


def _without_brackets(name: str) -> str:
    """The name without template arguments, parameters and `(anonymous namespace)::`."""
    depth, kept = 0, []
    for character in name.replace("operator()", "operator").replace("->", ""):
        depth += character in "<(["
        if depth == 0:
            kept.append(character)
        depth -= character in ">)]"
    return "".join(kept)
