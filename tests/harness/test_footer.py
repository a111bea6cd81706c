"""What a page says below its numbers is true of the runs that it shows."""

from __future__ import annotations

from typing import Any

from harness.footer import notes, shared
from harness.record import Record

NODE, GRAPH = "--cuda-graph-trace=node", "--cuda-graph-trace=graph"


def record(traced: str = NODE, sampled: str = NODE, **metrics: float) -> Record:
    """A run with all three processes; metrics: costs by name."""
    capture: dict[str, Any] = {
        "command": ["nsys", traced], "metrics_command": ["nsys", sampled], "metrics": "metrics.sqlite",
        "recorded": None,
    }  # fmt: skip
    return Record(
        id="x/y", scope="x", started_utc="20261122T120000Z", fingerprint="", inputs="", command=[],
        overrides=[], model="", device="cuda", environment={}, capture=capture, metrics=metrics,
    )  # fmt: skip


def test_a_run_names_its_own_costs() -> None:
    _, traced, sampled = notes({"x": record(profiling_overhead=0.443, metrics_overhead=0.515)})
    assert "a token took 44.3% longer, so idle shares are larger than without it." in traced
    assert "in which a token took 51.5% longer." in sampled and "faster" not in sampled
    assert "one by one" not in sampled
    _, traced, sampled = notes({"x": record(profiling_overhead=0.04, metrics_overhead=-0.044)})
    assert "4.0% longer, so idle shares are somewhat larger" in traced
    assert "took 4.4% less time." in sampled
    for cost, effect in ((0.011, "somewhat larger"), (0.1, "somewhat larger"), (0.11, "larger")):
        assert f"idle shares are {effect} than" in notes({"x": record(profiling_overhead=cost)})[1]
    _, traced, _ = notes({"x": record(profiling_overhead=-0.004)})
    assert "0.4% less time, so idle shares are about those without it." in traced


def test_the_cost_of_each_run_is_told_where_there_are_several() -> None:
    _, traced, sampled = notes(
        {
            "a": record(profiling_overhead=0.443, metrics_overhead=0.5),
            "b": record(GRAPH, NODE, profiling_overhead=1.289, metrics_overhead=-0.04),
        }
    )
    assert "(a +44.3%, b +128.9%)" in traced and "somewhat" not in traced
    assert "(a +50.0%, b -4.0%)" in sampled
    assert "The CUDA graphs of b are one piece each" in sampled and "the bytes are not changed" in sampled


def test_a_loop_that_was_recorded_node_by_node_is_slowed_down_by_that() -> None:
    assert "traced the kernels inside one by one, which delays them" in notes({"x": record(GRAPH, NODE)})[-1]
    assert "one by one" not in notes({"x": record(GRAPH, GRAPH)})[-1]


def test_of_several_runs_only_what_they_share_is_shown() -> None:
    one = [("Machine", "H200"), ("Command", "python -m harness +scope=one"), ("Date", "2026-11-22")]
    two = [("Machine", "H200"), ("Command", "python -m harness +scope=two"), ("Analysed again", "later")]
    assert shared([one, two]) == [
        ("Machine", "H200"),
        ("On each run's page", "what differs: Command, Date, Analysed again"),
    ]
    assert shared([one, one]) == one
