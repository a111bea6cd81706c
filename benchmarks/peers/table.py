"""The rows as a table for each batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """Tables of the setting that most was measured of, with where the numbers come from."""
    shown = book.largest(rows)
    order = {one.name: place for place, one in enumerate(everyone())}
    shown.sort(key=lambda row: order.get(row["contender"].split()[0], len(order)))
    parts = []
    for batch in sorted({row["batch"] for row in shown}):
        lines = [cells(row, book.reference(shown, row)) for row in shown if row["batch"] == batch]
        of_batch = f"Batch {batch}{_missing(shown, batch)}:\n\n{markdown(HEADER, lines)}"
        parts.append(_folded(f"Batch {batch}", of_batch) if parts else of_batch)
    if found := _finding(shown):
        parts.append(found)
    if notes := _notes(shown):
        parts.append("\n".join(notes))
    others = len(rows) - len(shown)
    left_out = f"; rows of other settings, left out: {others}" if others else ""
    return "\n\n".join([*parts, _origin(shown) + left_out])


def _folded(summary: str, text: str) -> str:
    """A text that a reader of the rendered page opens, so that the page stays short."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _finding(rows: Sequence[Row]) -> str:
    """How much faster the fastest of our scopes is than the fastest peer, in each batch that has both."""
    ours = {one.name for one in everyone() if one.module == "ours"}
    said = []
    for batch in sorted({row["batch"] for row in rows}):
        timed = [row for row in rows if row["batch"] == batch and row.get("total_ms")]
        own = [row for row in timed if row["contender"].split()[0] in ours]
        peers = [row for row in timed if row not in own]
        if own and peers:
            best, peer = (min(some, key=lambda row: median(row["total_ms"])) for some in (own, peers))
            ratio = median(peer["total_ms"]) / median(best["total_ms"])
            said.append(f"{ratio:.1f}× at batch {batch} ({best['label']} against {peer['label']})")
    return f"Fastest scope against fastest peer, a window: {', '.join(said)}." if said else ""


def _missing(rows: Sequence[Row], batch: int) -> str:
    """Who has a row for another batch only."""
    there = {row["label"] for row in rows if row["batch"] == batch}
    missing = ", ".join(dict.fromkeys(row["label"] for row in rows if row["label"] not in there))
    return f" (not measured: {missing})" if missing else ""


def _notes(rows: Sequence[Row]) -> list[str]:
    """Each note once, with the batches that it is about if it isn't about all of that contender's."""
    batches: dict[str, set[int]] = {}
    noted: dict[tuple[str, str], set[int]] = {}
    for row in filter(book.measured, rows):
        batches.setdefault(row["label"], set()).add(row["batch"])
        for note in row.get("notes", []):
            noted.setdefault((row["label"], note), set()).add(row["batch"])
    return [
        f"- {label}{'' if of == batches[label] else f', batch {_joined(of)}'}: {note}"
        for (label, note), of in noted.items()
    ]


def cells(row: Row, reference: Row | None) -> list[str]:
    """One row; a dash where there is no such number, and the reason where there is none at all."""
    if not book.measured(row):
        why = f"not run: {row['refused']}" if "refused" in row else f"FAILED: {row['failed']}"
        return [row["label"], *[ABSENT] * (len(HEADER) - 2), " ".join(why.replace("|", "\\|").split())]
    known = row["floor_bytes"] and row["peak_bps"]
    floor_ms = row["floor_bytes"] / row["peak_bps"] * 1e3 if known else None
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
    timed = [row for row in rows if row.get("total_ms")]
    if not timed:
        return f"{made}; {named}"
    counts = [len(row["total_ms"]) for row in timed]
    often = f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else counts[0]
    warmups = _joined({row["warmup"] for row in timed})
    counted = f"{rows[0]['tokens']} tokens, medians of {often} iterations after {warmups} of warm-up"
    return f"{made}; {counted}; {named}"


def _joined(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
