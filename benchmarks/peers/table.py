"""The rows as a table for each batch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from benchmarks.peers import book
from benchmarks.peers.contenders import REFERENCE, everyone
from benchmarks.peers.contest import Row, digest
from harness.results import ABSENT, markdown, origin

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEADER = (
    "",
    "decode step, ms (p25–p75)",
    "of the byte floor",
    "encoder, ms",
    "window, PCM to tokens, ms (p25–p75)",
    "speed-up",
    "tokens",
)


def page(rows: Sequence[Row]) -> str:
    """Tables of the newest setting, with where the numbers come from."""
    rows = book.latest(rows)
    order = {one.name: place for place, one in enumerate(everyone())}
    rows = sorted(rows, key=lambda row: order.get(row["contender"].split()[0], len(order)))
    parts = []
    for batch in sorted({row["batch"] for row in rows}):
        lines = [cells(row, book.reference(rows, row)) for row in rows if row["batch"] == batch]
        parts.append(f"Batch {batch}:\n\n{markdown(HEADER, lines)}")
    notes = dict.fromkeys(f"- {row['label']}: {note}" for row in rows for note in row.get("notes", []))
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else []), _origin(rows)])


def cells(row: Row, reference: Row | None) -> list[str]:
    """One row; a dash where there is no such number, and the reason where there is none at all."""
    if why := row.get("refused") or row.get("failed"):
        words = f"{'not run' if 'refused' in row else 'FAILED'}: {why}".replace("|", "\\|")
        return [row["label"], *[ABSENT] * (len(HEADER) - 2), words]
    floor_ms = row["floor_bytes"] / row["peak_bps"] * 1e3 if row["peak_bps"] else None
    times = (row["total_ms"], reference["total_ms"] if reference else [])
    return [
        row["label"],
        _spread(row["step_ms"], 3),
        f"{floor_ms / median(row['step_ms']):.1%}" if floor_ms else ABSENT,
        f"{median(row['encode_ms']):.2f}" if any(row["encode_ms"]) else ABSENT,
        _spread(row["total_ms"], 1),
        f"{median(times[1]) / median(times[0]):.1f}×" if all(times) else ABSENT,
        _tokens(row, reference),
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ABSENT
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _tokens(row: Row, reference: Row | None) -> str:
    if row["contender"] == REFERENCE:
        return "reference"
    agreement = row.get("agreement")
    if not agreement or not reference or agreement["reference"] != digest(reference["chosen"]):
        return "not compared"
    if agreement["first_difference"] is None:
        return "identical"
    windows = f", {agreement['windows_identical']} of {row['batch']} windows" if row["batch"] > 1 else ""
    return f"{agreement['share']:.2%} equal{windows}, from position {agreement['first_difference']}"


def _origin(rows: Sequence[Row]) -> str:
    """Machine, date and code; versions, and how often each was measured."""
    made = origin([row | {"word_errors": None} for row in rows])
    versions: dict[str, set[str]] = {}
    for row in rows:
        for name, version in row.get("versions", {}).items():
            versions.setdefault(name, set()).add(version)
    named = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in versions.items())
    counts = sorted({len(row["total_ms"]) for row in rows if row.get("total_ms")})
    often = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}" if counts else "no"
    first = rows[0]
    counted = f"{first['tokens']} tokens, medians of {often} iterations after {first['warmup']} of warm-up"
    return f"{made}; {counted}; {named}"
