"""What was measured, as tables on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

SHOWN_TEXT = 60  # letters


def percent(share: float | None) -> str:
    """A share as per cent with two decimals, a dash if there is none."""
    return "–" if share is None else f"{share:.2%}"


def seconds(value: float | None) -> str:
    """A time with three decimals, a dash if there is none."""
    return "–" if value is None else f"{value:.3f} s"


def _table(title: str, *header: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    table.add_column(header[0])
    for name in header[1:]:
        table.add_column(name, justify="left" if name.startswith("text") else "right")
    return table


def words(found: dict[str, Any]) -> Iterator[RenderableType]:
    everything = found["all"]
    if everything["why"]:
        yield f"No word error rate: {escape(everything['why'])}."
        return
    title = f"Words ({everything['library']}, {everything['normalizer']}; greedy, the project's decoder)"
    table = _table(title, "clips", "number", "WER", "CER", "words", "replaced", "left out", "added")
    for name, rates in {"all": everything, **found["conditions"]}.items():
        counts = (rates[key] for key in ("words", "substitutions", "deletions", "insertions"))
        table.add_row(
            name, str(rates["clips"]), percent(rates["wer"]), percent(rates["cer"]), *map(str, counts)
        )
    yield table


def timestamps(found: dict[str, Any]) -> Iterator[RenderableType]:
    near = f"both ends within {found['within_s']} s"
    columns = (near, "start: median", "95% below", "end: median", "95% below")
    table = _table("Timestamps (transformers' generate)", "clips", "segments", "unmatched", *columns)
    keys = ("start_error_median_s", "start_error_p95_s", "end_error_median_s", "end_error_p95_s")
    for name, row in {"all": found["all"], **found["conditions"]}.items():
        counts = (str(row["segments"]), str(row["unmatched"]), percent(row["share_within"]))
        table.add_row(name, *counts, *(seconds(row[key]) for key in keys))
    yield table
    yield f"  WER of the text that came with them: {percent(found['wer'])}"


def draft(found: dict[str, Any]) -> Iterator[RenderableType]:
    per_pass = found["without_timestamps"]["tokens_per_verification"]
    drafted = [f"{k} drafted" for k in per_pass]
    table = _table("Draft: agreement, tokens per verification", "prompt", "positions", "agreement", *drafted)
    for name, row in found.items():
        counts = [str(row["positions"]), percent(row["share"])]
        speeds = ["–" if n is None else f"{n:.2f}" for n in row["tokens_per_verification"].values()]
        table.add_row(name.replace("_", " "), *counts, *speeds)
    yield table


def transformers(found: dict[str, Any]) -> Iterator[RenderableType]:
    yield f"[bold]transformers' pipeline[/]: the same text for {found['same']} of {found['clips']} clips"
    for row in found["differences"]:
        yield f"  {escape(row['source'])}\n    project       {escape(row['project'])}"
        yield f"    transformers  {escape(row['transformers'])}"


def robustness(found: dict[str, Any]) -> Iterator[RenderableType]:
    columns = ("no speech", "tokens", "text", "tokens, timed", "text, timed", "endless")
    table = _table("Nobody speaks", "30 s of", *columns)
    for row in found["signals"]:
        plain, timed = row["without_timestamps"], row["with_timestamps"]
        cells = [cell for one in (plain, timed) for cell in (str(one["tokens"]), _short(one["text"]))]
        endless = "yes" if plain["endless"] or timed["endless"] else "no"
        table.add_row(row["signal"], f"{row['no_speech']:.3f}", *cells, endless)
    yield table


def _short(text: str) -> str:
    return escape(text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 1]}…")
