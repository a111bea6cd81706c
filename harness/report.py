"""The tables that a run ends with, on the screen and in report.txt."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from harness.metrics import FLOOR_MS, FLOOR_RATIO, METRICS_OVERHEAD
from harness.verdict import found_in_words, held_in_words, shown

WIDTH = 120  # of report.txt, and of output that goes to no terminal


def screen(piped: int = WIDTH) -> Console:
    """Standard output; tables are not squeezed into 80 columns where there is no terminal to fit, but into
    `piped`."""
    console = Screen()
    return console if console.is_terminal else Screen(width=piped)


class Screen(Console):
    """One whose reader may go away (`| head`): a run doesn't depend on who reads what it says."""

    def on_broken_pipe(self) -> None:
        """Be quiet from now on, where rich ends the program."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Report:
    """Collects what is said about a run: printed at once, written as text at the end."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._said: list[RenderableType] = []

    def say(self, what: RenderableType) -> None:
        """Print a table or a paragraph and keep it for the file. Strings hold no markup."""
        shown = Text(what) if isinstance(what, str) else what
        self._said.append(shown)
        self._out.print(shown)

    def say_if(self, what: str) -> None:
        """Print a paragraph unless it is empty."""
        if what:
            self.say(what)

    def write(self, path: Path) -> None:
        """Write everything said so far, as plain text."""
        with open(path, "w") as file:
            console = Console(file=file, width=WIDTH, color_system=None)
            for what in self._said:
                console.print(what)


def latency_table(metrics: Mapping[str, float], title: str) -> Table:
    """The measured child's medians, their 95% intervals, quartiles, and which medians are unstable."""
    from analysis.statistics import unstable_remark

    table = Table("phase", title=title, title_justify="left", title_style="bold", box=SIMPLE)
    for column in ("median", "95% interval", "p25", "p75"):
        table.add_column(column, justify="right")
    table.add_column()
    labels = {
        "total_ms": "whole iteration, ms",
        "features_ms": "features, ms",
        "encode_ms": "encode, ms",
        "prefill_ms": "prefill, ms",
        "decode_ms": "decode, ms",
        "ms_per_token": "per token, ms",
        "real_time_factor": "seconds per second of audio",
    }
    for name, label in labels.items():
        if name in metrics:
            median, p25, p75 = (f"{metrics[name + end]:.4g}" for end in ("", ".p25", ".p75"))
            between = "–"
            if f"{name}.low" in metrics and f"{name}.high" in metrics:
                between = " – ".join(f"{metrics[name + end]:.4g}" for end in (".low", ".high"))
            table.add_row(label, median, between, p25, p75, unstable_remark(metrics, name))
    return table


def floor_sentence(metrics: Mapping[str, float]) -> str:
    """How far a decode step is from the time that its bytes take; empty where that is unknown."""
    if FLOOR_RATIO not in metrics:
        return ""
    return (
        f"Floor: a token takes {metrics[FLOOR_RATIO]:.1f}× its byte floor, "
        f"{shown('ms_per_token', metrics['ms_per_token'])} against {shown(FLOOR_MS, metrics[FLOOR_MS])} for "
        "what a step has to read and write, at the GPU's peak bandwidth."
    )


def longer(share: float) -> str:
    """A change of duration as what something takes: "4.2% longer", or "4.2% less time"."""
    return f"{abs(share):.1%} {'longer' if share >= 0 else 'less time'}"


def memory_sentence(metrics: Mapping[str, float]) -> str:
    """What the recording with GPU metrics says about decoding; empty without one. Where the device repeats
    the steps by itself, nothing is known of one of them, and a token is their mean."""
    if "decode.dram_gbps" not in metrics:
        return ""
    where = ""
    if METRICS_OVERHEAD in metrics:
        where = f" (a recording of its own, in which a token took {longer(metrics[METRICS_OVERHEAD])})"
    rate = (
        f"DRAM is at {metrics['decode.dram_gbps']:,.0f} GB/s, {metrics['decode.dram_share']:.1%} of its peak"
    )
    if of_step := metrics.get("decode.bytes_per_step"):
        return f"Memory{where}: a decode step moves {of_step / 1e6:,.0f} MB; {rate}."
    if not (of_token := metrics.get("decode.bytes_per_token")) or "ms_per_token" not in metrics:
        return f"Memory{where}: while decoding {rate}."
    share = unslowed_share(metrics)
    return (
        f"Memory{where}: a token moves {of_token / 1e6:,.0f} MB; {rate} there, and {share:.1%} at the pace "
        "that decoding has without a profiler."
    )


def unslowed_share(metrics: Mapping[str, float]) -> float:
    """The share of DRAM's peak at which a token's bytes move in the time that it takes without a profiler.

    Bytes don't depend on how long a recording makes a token take; nsys delays loops on the device a lot.
    """
    peak_gbps = metrics["decode.dram_gbps"] / metrics["decode.dram_share"]
    return metrics["decode.bytes_per_token"] / (metrics["ms_per_token"] * 1e6) / peak_gbps


def verdict_table(verdict: Sequence[Mapping[str, Any]], claim: str) -> Table:
    """What the scope's hypothesis expected, and what came out."""
    table = Table("expected", "found", "verdict", title_justify="left", title_style="bold", box=SIMPLE)
    table.title = f"Hypothesis: {claim}"
    for row in verdict:
        table.add_row(f"{row['metric']} {row['expect']}", found_in_words(row), held_in_words(row))
    return table


def transcript_lines(transcripts: Sequence[Mapping[str, Any]]) -> str:
    """What was heard: one line per window."""
    return "\n".join(
        f"{Path(t['source']).name} [{t['window']}] {t['text'] if t['text'] is not None else t['tokens']}"
        for t in transcripts
    )


def word_error_lines(found: Mapping[str, Any]) -> str:
    """The error rates as a sentence, and the clips with the most errors with their alignments."""
    if found["wer"] is None:
        return f"Words: no error rate: {found['why']}."
    wer, cer = shown("wer", found["wer"]), shown("cer", found["cer"])
    clips = "1 clip" if found["clips"] == 1 else f"{found['clips']} clips"
    counts = ", ".join(f"{kind} {found[kind]}" for kind in ("substitutions", "deletions", "insertions"))
    sentence = (
        f"Words: {wer} WER, {cer} CER over {found['words']:,} words of {clips} "
        f"({found['library']}, {found['normalizer']}): {counts}."
    )
    if missing := found["clips_without_reference"]:
        sentence += f" Clips left out, without a reference: {missing}."
    lines = [sentence]
    for clip in found["worst"]:
        lines += [f"{clip['source']} (errors {clip['errors']}, words {clip['words']})", clip["alignment"]]
    return "\n".join(lines)
