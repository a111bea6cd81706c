"""Whether a run's hypothesis held, and whether it wrote the same tokens as the run it is compared with."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics import ACCEPTANCE, AGREEMENT, ERROR_RATES, METRICS_OVERHEAD, OVERHEAD, needs_gpu


def judge(
    expect: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
    device: str,
    recorded: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """One row per expectation: `metric`, `expect`, `value`, `held` (True, False, None: undecided), `why`.

    Expectations on times and traces are about a GPU. Without one they stay undecided, and `why` says what
    the `recorded` trace (its `note` and `metrics`) showed.
    """
    return [_judge_one(item, metrics, device, recorded) for item in expect]


def _judge_one(
    item: Mapping[str, Any],
    metrics: Mapping[str, float],
    device: str,
    recorded: Mapping[str, Any] | None,
) -> dict[str, Any]:
    name = item["metric"]
    bound = "at_most" if "at_most" in item else "at_least"
    row = {"metric": name, "expect": f"{bound.replace('_', ' ')} {shown(name, item[bound])}"}

    def held(value: float) -> bool:
        return value <= item[bound] if bound == "at_most" else value >= item[bound]

    if device == "cpu" and needs_gpu(name):
        why = "not measurable here"
        if recorded and name in recorded["metrics"]:
            value = recorded["metrics"][name]
            outcome = "held" if held(value) else "did not hold"
            why += f"; {recorded['note']}: {outcome} ({shown(name, value)})"
        elif recorded:
            why += f"; {recorded['note']}: no such metric{_nearest(name, recorded['metrics'])}"
        return row | {"value": None, "held": None, "why": why}
    if name not in metrics:
        why = f"this run has no such metric{_nearest(name, metrics)}"
        return row | {"value": None, "held": None, "why": why}
    return row | {"value": metrics[name], "held": held(metrics[name]), "why": ""}


def found_in_words(row: Mapping[str, Any]) -> str:
    """What a row of `judge` found, empty where nothing was."""
    return "" if row["value"] is None else shown(row["metric"], row["value"])


def held_in_words(row: Mapping[str, Any]) -> str:
    """Whether an expectation held, and why that is undecided."""
    word = {True: "held", False: "DID NOT HOLD", None: "undecided"}[row["held"]]
    return f"{word}: {row['why']}" if row["why"] else word


def outcome(verdict: Sequence[Mapping[str, Any]]) -> str:
    """Whether all that a scope's hypothesis expects came true, or what did not; empty without a verdict."""
    failed = [row["metric"] for row in verdict if row["held"] is False]
    if failed:
        return f"did not hold: {', '.join(failed)}"
    if any(row["held"] is None for row in verdict):
        return "undecided"
    return "held" if verdict else ""


def _nearest(name: str, metrics: Mapping[str, float]) -> str:
    """What a name may be misspelt for."""
    near = difflib.get_close_matches(name, metrics, n=1, cutoff=0.8)
    return f" (nearest: {near[0]})" if near else ""


def not_compared(why: str) -> dict[str, Any]:
    """What `compare_tokens` gives where there is nothing to compare with."""
    return {"run": None, "identical": None, "agreement": None, "why": why}


def compare_tokens(
    mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], with_run: str
) -> dict[str, Any]:
    """Whether two lists of transcripts hold the same tokens; if not, the first difference and the margin
    (top-1 minus top-2 logit of `mine`) at it: a margin near zero is rounding, a large one is a mistake.

    agreement: of all `positions`, the share that holds the same token in both; a window has as many as the
    longer of its two transcripts. None if the windows differ.
    """
    here = {(t["source"], t["window"]): t for t in mine}
    there = {(t["source"], t["window"]): t for t in theirs}
    result = {"run": with_run, "identical": True, "windows": len(here), "first_difference": None}
    if here.keys() != there.keys():
        why = "the runs transcribed different windows"
        return result | {"identical": False, "positions": None, "agreement": None, "why": why}
    tokens = [(transcript["tokens"], there[key]["tokens"]) for key, transcript in here.items()]
    positions = sum(max(len(a), len(b)) for a, b in tokens)
    equal = sum(x == y for a, b in tokens for x, y in zip(a, b, strict=False))
    result |= {"positions": positions, "agreement": equal / positions if positions else 1.0}
    for key, transcript in here.items():
        a, b = transcript["tokens"], there[key]["tokens"]
        if a == b:
            continue
        position = next(
            (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
        )
        margins = transcript["margins"]
        return result | {
            "identical": False,
            "first_difference": {
                "source": key[0],
                "window": key[1],
                "position": position,
                "tokens": [t[position] if position < len(t) else None for t in (a, b)],
                "margin": margins[position] if position < len(margins) else None,
            },
        }
    return result


def tokens_sentence(scope: str, match: Mapping[str, Any]) -> str:
    """The comparison as one sentence."""
    if match["identical"] is None:
        return f"Tokens: not compared with {scope}: {match['why']}."
    if match["identical"]:
        return f"Tokens: identical with {match['run']} (windows compared: {match['windows']})."
    difference = match["first_difference"]
    if difference is None:
        return f"Tokens: not those of {match['run']}: {match['why']}."
    margin = "unknown" if difference["margin"] is None else f"{difference['margin']:.4g}"
    return (
        f"Tokens: differ from {match['run']} first in {difference['source']}, window {difference['window']}, "
        f"position {difference['position']} (logit margin there: {margin}); "
        f"{shown(AGREEMENT, match['agreement'])} of {match['positions']:,} positions hold the same token."
    )


def shown(metric: str, value: float) -> str:
    """A number as people read it: shares as per cent, units from the metric's name."""
    if "share" in metric or metric in (ACCEPTANCE, OVERHEAD, METRICS_OVERHEAD):
        return f"{value:.1%}"
    if metric in (*ERROR_RATES, AGREEMENT):
        return f"{value:.2%}"
    unit = next((f" {u}" for u in ("ms", "us") if f"_{u}" in metric or metric.startswith(u)), "")
    return f"{value:,.4g}{unit}".replace(" us", " µs")
