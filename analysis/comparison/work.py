"""Whether a repetition holds the same work in two traces: what doesn't is not compared as if it did.

A trace may have been cut after its first decode steps, decode in one launch without a range for each step, or
give several tokens a step. What a whole iteration has, only the run's own timing (measure.json) knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.accounting.phases import DECODE, HARNESS_DOMAIN
from analysis.repetitions import ITERATIONS, STEPS, Unit

DECODES: Unit = (HARNESS_DOMAIN, DECODE)
_AS_MANY = 1.2  # tokens a step; the last step of a window may give none


@dataclass(frozen=True)
class Steps:
    """The decode steps of a trace.

    counts: how often each range is in the trace. whole: decode steps of a whole iteration, and tokens: what
    one gives; None where no measure.json tells.
    """

    name: str
    counts: Mapping[Unit, int]
    whole: float | None = None
    tokens: float | None = None

    @property
    def has_iterations(self) -> bool:
        return self.counts.get(ITERATIONS, 0) > 0

    @property
    def is_whole(self) -> bool:
        """Whether its iterations are known to have all of their steps."""
        return self.has_iterations and self.per(ITERATIONS) == self.whole

    @property
    def is_cut(self) -> bool:
        """Whether they are known to lack some."""
        return self.has_iterations and self.whole is not None and self.per(ITERATIONS) < self.whole

    def per(self, unit: Unit) -> float:
        """Decode steps in one range of this name."""
        return self.counts.get(STEPS, 0) / max(self.counts.get(unit, 0), 1)

    def said(self) -> str:
        if self.is_cut:
            return f"the trace of {self.name} has {self._share()}"
        steps = self.per(ITERATIONS if self.has_iterations else DECODES)
        if not steps:
            return f"{self.name} has no ranges of single decode steps"
        return f"{self.name} has {steps:g} decode steps in an iteration"

    def cut(self) -> str:
        """What a trace that was cut has, "" for another."""
        return f"only {self._share()}" if self.is_cut else ""

    def _share(self) -> str:
        iterations = self.counts[ITERATIONS]
        where = "an iteration" if iterations == 1 else f"{iterations} iterations"
        whole = (self.whole or 0) * iterations
        return f"{self.counts.get(STEPS, 0)} of the {whole:g} decode steps of {where}"


def difference(unit: Unit, a: Steps, b: Steps) -> str:
    """Why a range of this name is not the same work in both; "" if nothing speaks against it."""
    if unit not in (STEPS, ITERATIONS, DECODES):
        return ""
    if unit == STEPS or (a.per(unit) == b.per(unit) > 0):
        return _other_tokens(a, b)
    if (a.is_whole and b.is_whole) or (a.per(unit) == b.per(unit) and not (a.is_cut or b.is_cut)):
        return ""
    return f"{a.said()}, {b.said()}"


def best_unit(units: Sequence[Unit], a: Steps, b: Steps) -> tuple[Unit | None, str]:
    """The first of the `units` that both have which is the same work in both, or None and why.

    A harness whose steps and iterations don't compare is not compared by a lesser phase, as if that were all.
    """
    reason = ""
    for unit in units:
        if reason and unit not in (STEPS, ITERATIONS):
            break
        found = difference(unit, a, b)
        if not found:
            return unit, ""
        reason = reason or found
    return None, reason


def warnings(unit: Unit | None, reason: str, a: Steps, b: Steps) -> list[str]:
    """What a reader must know of the work that is compared by `unit`; `reason`: why there is none."""
    cuts = {one.name: one.cut() for one in (a, b) if one.is_cut}
    found = [f"{name}: its trace has {cut}; traced times are of these" for name, cut in cuts.items()]
    if len(cuts) == 2 and len(set(cuts.values())) == 1:
        found = [f"{a.name} and {b.name}: their traces have {a.cut()}; traced times are of these"]
    if unit is None:
        advice = "the latencies are of whole iterations" if None not in (a.whole, b.whole) else ""
        advice = advice or "compare the run folders, whose latencies are of whole iterations"
        found.append(f"times per iteration, causes and kernels don't compare: {reason}; {advice}")
    elif unit == STEPS and not cuts and a.has_iterations and b.has_iterations:
        other = difference(ITERATIONS, a, b)
        found += [f"{other}: compared per decode step, which says nothing of whole iterations"] * bool(other)
    return found


def other_gpus(a: str, b: str, gpus: tuple[int, int]) -> str:
    """How many GPUs are at work in `a` and in `b`, where these differ; "" otherwise."""
    if gpus[0] == gpus[1]:
        return ""
    return " and ".join(
        f"{n} GPU{'s' * (n != 1)} at work in {name}" for name, n in zip((a, b), gpus, strict=True)
    )


def gpu_warnings(other: str, unit: str, gpus: tuple[int, int]) -> list[str]:
    """What a reader must know of times per `unit` that several GPUs share; other: see `other_gpus`."""
    if other:
        return [
            f"{other}: times per {unit} are device time summed over GPUs, and say nothing of which is faster"
        ]
    summed = f"both traces have {gpus[0]} GPUs at work: times per {unit} are device time summed over them"
    return [summed] if gpus[0] > 1 else []


def _other_tokens(a: Steps, b: Steps) -> str:
    if not a.tokens or not b.tokens or max(a.tokens, b.tokens) < _AS_MANY * min(a.tokens, b.tokens):
        return ""
    return f"a decode step gives {a.tokens:.2g} tokens in {a.name}, {b.tokens:.2g} in {b.name}"
