"""Numbers of points, placed so that they can be read where points lie close together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_EM = 0.66  # width of a bold digit over the font's size
_APART = 1.5  # sizes of the font between points whose numbers can stand on them


@dataclass(frozen=True)
class Label:
    """A text, its point, and how far right of and above the middle of that the middle of the text is."""

    text: str
    point: int
    right: float
    up: float


def numbered(spots: Floats, size: float) -> list[Label]:
    """Labels 1, 2, … of points; those of points in one place are one label beside them.

    spots: x, y and radius of each point, shape [n, 3]; size: of the font; all in points of the page.
    """
    groups: list[list[int]] = []
    for number, spot in enumerate(spots):
        near = [g for g in groups if any(_distance(spots[n], spot) < _APART * size for n in g)]
        groups = [g for g in groups if g not in near] + [[*chain.from_iterable(near), number]]
    placed: list[Floats] = []
    labels = []
    for group in sorted(groups, key=len):
        text = ", ".join(str(number + 1) for number in sorted(group))
        largest = max(group, key=lambda number: float(spots[number, 2]))
        box = np.array([_EM * size * len(text) / 2, size / 2])
        others = np.delete(spots, group, axis=0)[:, :2]
        options = [spots[largest, :2] + offset for offset in _offsets(box, spots[largest, 2], len(group))]
        best = min(options, key=lambda middle: _crossed(middle, box, placed, others))
        placed.append(np.concatenate([best, box]))
        right, up = (best - spots[largest, :2]).tolist()
        labels.append(Label(text, largest, right, up))
    return labels


def _offsets(box: Floats, radius: float, together: int) -> list[tuple[float, float]]:
    """Where a label may stand, the best first: on its point if it is the only one."""
    across, above = radius + box[0] + 3, radius + box[1] + 2
    around = [(across, 0.0), (across, above), (0.0, above), (-across, 0.0), (0.0, -above)]
    return [(0.0, 0.0), *around] if together == 1 else around


def _crossed(middle: Floats, box: Floats, placed: Sequence[Floats], others: Floats) -> int:
    """How many labels, and middles of other points, a label would cover."""
    labels = sum(bool((np.abs(middle - one[:2]) < box + one[2:]).all()) for one in placed)
    return labels + int((np.abs(others - middle) < box).all(axis=1).sum())


def _distance(one: Floats, other: Floats) -> float:
    return float(np.hypot(*(one[:2] - other[:2])))
