"""The floor of a decode step: Whisper-small's known numbers, and the tensors of a model that really runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml
import pytest
import torch
from omegaconf import DictConfig

from experiments import floor
from experiments.transcription import Transcription, build
from harness import digest, environment, report
from harness.phases import PhaseClock

SMALL = floor.Shapes(layers=12, width=768, mlp=3072, positions=1500, vocabulary=51865)


def test_whisper_small_in_fp16() -> None:
    least = floor.decode_step(SMALL, cached=1, element_bytes=2)
    assert least.bytes == pytest.approx(333e6, rel=0.002)
    assert least.bytes / 4.3e12 * 1e6 == pytest.approx(78, abs=0.5)  # µs at the read bandwidth of an H200
    assert least.flops / least.bytes == pytest.approx(1, rel=0.01), "far below any GPU's FLOPs per byte"


def test_a_token_more_in_the_cache_costs_its_keys_and_values() -> None:
    one, two = (floor.decode_step(SMALL, cached, element_bytes=2) for cached in (100, 101))
    assert two.bytes - one.bytes == 12 * 2 * 768 * 2
    assert two.flops - one.flops == 2 * 12 * 2 * 768


def test_rows_share_the_weights_and_nothing_else() -> None:
    one, two, three = (floor.decode_step(SMALL, 1, 2, rows) for rows in (1, 2, 3))
    row = 2 * (2 * 12 * (1500 + 1) * 768 + 2 * 768)  # caches, and a row of each embedding
    assert two.bytes - one.bytes == three.bytes - two.bytes == row
    assert two.flops == 2 * one.flops


def test_smaller_weights_leave_the_caches() -> None:
    """Whisper-small with int8 weights: 194 MB, 45 µs."""
    least = floor.decode_step(SMALL, cached=1, element_bytes=2, weight_bytes=1)
    assert least.bytes == pytest.approx(194e6, rel=0.005)


def test_weights_are_those_that_the_model_has(baseline: Transcription) -> None:
    """All of the decoder but what a step doesn't read: cross-attention's projections of the encoder's output,
    and the other rows of the position table.
    """
    model = baseline._loaded.model
    config, decoder = model.config, model.get_decoder()
    unread = ("encoder_attn.k_proj", "encoder_attn.v_proj", "embed_positions")
    read = sum(
        p.numel() for name, p in decoder.named_parameters() if not any(part in name for part in unread)
    )
    rows = 2 * config.d_model
    caches = 2 * config.decoder_layers * config.d_model * (config.max_source_positions + 7)
    least = floor.decode_step(floor.Shapes.of(config), cached=7, element_bytes=4)
    assert least.bytes == 4 * (read + rows + caches)


def test_the_workload_describes_the_floor_of_the_steps_that_ran(
    configure: Callable[..., DictConfig], clock: PhaseClock
) -> None:
    work: Any = build(configure("cuda_graphs", "max_new_tokens=9"), "cpu")
    assert work.describe()["floor"] == {}, "nothing ran"
    work.run(clock)
    found = work.describe()["floor"]
    prompt = len(work._loaded.prompt)
    assert found["cached_tokens"] == prompt + 4.5, "the mean of 1 to 8: the first token is the prefill's"
    assert found["element_bytes"] == torch.float32.itemsize
    least = floor.decode_step(floor.Shapes.of(work._loaded.model.config), prompt + 4.5, 4)
    assert (found["decode_step_bytes"], found["decode_step_flops"]) == (least.bytes, least.flops)


@pytest.mark.parametrize(("batch", "rows", "said"), [(1, 1, False), (2, 2, False), (8, 2, True)])
def test_rows_that_hold_no_window_are_not_in_the_floor(
    batch: int, rows: int, said: bool, configure: Callable[..., DictConfig], clock: PhaseClock
) -> None:
    work: Any = build(configure("cuda_graphs", "max_new_tokens=3", f"batch={batch}"), "cpu")
    work.run(clock)
    described = work.describe()
    least = floor.decode_step(floor.Shapes.of(work._loaded.model.config), 5.5, 4, rows)
    assert described["floor"]["rows"] == rows and described["floor"]["decode_step_bytes"] == least.bytes
    assert any("6 rows of each step are computed for nothing" in note for note in described["notes"]) is said


def measured(ms_per_token: float, least: dict[str, float]) -> dict[str, Any]:
    step_ns = int(ms_per_token * 1e6)
    phases = {"decode": [4 * step_ns], "decode.step": [step_ns] * 4}
    return {"iterations": [{"iter_ns": 5 * step_ns, "phases": phases}], "workload": {"floor": least}}


def test_the_floor_as_metrics_and_as_a_sentence() -> None:
    child = measured(0.96, {"decode_step_bytes": 333e6})
    found = digest.floor(child, {"memory_bandwidth_bps": 4.8e12})
    assert found["decode.floor_ms"] == pytest.approx(333e6 / 4.8e12 * 1e3)
    assert found["decode.floor_ratio"] == pytest.approx(0.96 / found["decode.floor_ms"])
    three = measured(0.96, {"decode_step_bytes": 333e6, "rows": 3})
    of_three = digest.floor(three, {"memory_bandwidth_bps": 4.8e12})
    assert of_three["decode.floor_ms"] == pytest.approx(found["decode.floor_ms"] / 3), "a token each"
    sentence = report.floor_sentence(digest.latency(child) | found)
    assert "13.8× its byte floor" in sentence and "0.96 ms against 0.06938 ms" in sentence


@pytest.mark.parametrize(
    ("least", "gpu"),
    [
        ({"decode_step_bytes": 333e6}, None),
        ({"decode_step_bytes": 333e6}, {"memory_bandwidth_bps": None}),
        ({"decode_step_bytes": 333e6}, {"name": "of a run before there was a floor"}),
        ({}, {"memory_bandwidth_bps": 4.8e12}),
    ],
)
def test_what_is_unknown_gives_no_floor(least: dict[str, float], gpu: dict[str, Any] | None) -> None:
    assert digest.floor(measured(0.96, least), gpu) == {}
    assert report.floor_sentence({"ms_per_token": 0.96}) == ""


def test_the_peak_bandwidth_of_an_h200() -> None:
    assert environment._peak_bandwidth(3201, 6016) == pytest.approx(4.814e12, rel=1e-3)
    assert environment._peak_bandwidth(None, 6016) is None and environment._peak_bandwidth(3201, None) is None


def test_a_run_names_the_gpu_that_it_sees_and_its_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs CUDA_VISIBLE_DEVICES shows the second; `handle` is its number."""
    clocks = {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201}
    nvml: dict[str, Callable[..., Any]] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: ["A100", "H200"][handle],
        "nvmlDeviceGetMaxClockInfo": lambda handle, clock: clocks[clock],
        "nvmlDeviceGetClockInfo": lambda handle, clock: clocks[clock] - 1,
        "nvmlDeviceGetMemoryBusWidth": lambda handle: 6016,
    }
    for name, answer in nvml.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    found = environment.gpu()
    assert found is not None and found["name"] == "H200"
    assert found["clocks_mhz"] == {"sm": 1979, "memory": 3200}
    assert found["max_clocks_mhz"] == {"sm": 1980, "memory": 3201}
    assert found["memory_bandwidth_bps"] == pytest.approx(4.814e12, rel=1e-3)
