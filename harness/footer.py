"""How the numbers of a page were measured, in notes below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import report
from harness.metrics import METRICS_OVERHEAD, OVERHEAD
from harness.record import Record

_NO_COST, _LARGE_COST = 0.01, 0.1  # shares of a token's time: not worth a word; more than "somewhat"
_GRAPHS = "--cuda-graph-trace="


def shared(environments: Sequence[Sequence[tuple[str, str]]]) -> list[tuple[str, str]]:
    """What is the same for all runs, and the names of what is not, which each run's own page tells."""
    terms = list(dict.fromkeys(term for one in environments for term, _ in one))
    values = {term: {dict(one).get(term, "") for one in environments} for term in terms}
    same = [(term, values[term].pop()) for term in terms if len(values[term]) == 1]
    if apart := [term for term in terms if len(values[term]) > 1]:
        same.append(("On each run's page", f"what differs: {', '.join(apart)}"))
    return same


def notes(records: Mapping[str, Record]) -> list[str]:
    """Where the numbers of these runs, by label, come from."""
    said = ["Latencies are medians of the iterations of a process without a profiler."]
    if bundled := [record.capture["recorded"] for record in records.values() if record.capture["recorded"]]:
        whose = "; ".join(dict.fromkeys(one["note"] for one in bundled))
        said.append(
            f"This machine has no GPU: gaps, idle time, phases and kernels are those of a trace {whose}, of "
            "which the first window is kept. The words, the tokens and this run's latencies are "
            "this machine's."
        )
    elif any(record.capture["command"] for record in records.values()):
        said.append(
            "Idle time, gaps, phases and kernels come from a second process, which was profiled; the two are "
            f"never mixed. {_cost(records)}"
        )
    else:
        said.append("Nothing was traced (capture=none), so nothing is known about gaps and kernels.")
    if any(record.capture.get("metrics") for record in records.values()):
        said.append(_sampling(records))
    return said


def _cost(records: Mapping[str, Record]) -> str:
    """What the profiler did to the idle shares, by its cost to each run."""
    costs = {label: r.metrics[OVERHEAD] for label, r in records.items() if OVERHEAD in r.metrics}
    if not costs:
        return "A profiler slows launches down, so idle shares are larger than without it."
    most = max(costs.values())
    if most < _NO_COST:
        effect = "so idle shares are about those without it"
    else:
        effect = f"so idle shares are {'larger' if most > _LARGE_COST else 'somewhat larger'} than without it"
    if len(records) > 1 and most >= _NO_COST:
        effect += ", the more the longer it took"
    return f"There a token took {_each(costs)}, {effect}."


def _sampling(records: Mapping[str, Record]) -> str:
    """What the recording with GPU metrics is, and what it did to the runs."""
    costs = {
        label: r.metrics[METRICS_OVERHEAD] for label, r in records.items() if METRICS_OVERHEAD in r.metrics
    }
    took = f", in which a token took {_each(costs)}" if costs else ""
    note = (
        f"Memory traffic comes from a third process, whose GPU counters were sampled{took}. Its gaps are not "
        "those without sampling, so none are read from it."
    )
    apart = [label for label, record in records.items() if _node_by_node(record)]
    if not apart:
        return note
    of = f" of {', '.join(apart)}" if len(records) > 1 else ""
    return (
        f"{note} The CUDA graphs{of} are one piece each in the trace, but that process traced the kernels "
        "inside one by one, which delays them: their times and DRAM GB/s there are those of a slowed run; "
        "the bytes are not changed."
    )


def _node_by_node(record: Record) -> bool:
    """Whether graphs were one piece in the trace, but not in the recording with GPU metrics."""
    commands = (record.capture.get(name) or [] for name in ("command", "metrics_command"))
    traced, sampled = commands
    return f"{_GRAPHS}graph" in traced and f"{_GRAPHS}node" in sampled


def _each(shares: Mapping[str, float]) -> str:
    """A change of duration, or that of each run."""
    if len(shares) == 1:
        return report.longer(*shares.values())
    every = ", ".join(f"{label} {share:+.1%}" for label, share in shares.items())
    return f"longer by a share that differs ({every})"
