"""`python -m benchmarks.throughput`: how many seconds of sound the pipeline transcribes in one second.

Whisper-small's shapes with random weights, 100 tokens a window, from samples in memory (`pcm`: windows of
30 s) and from FLAC files (`files`: read, cut at silences). Features, copies and tokens on the host are
included; words are not: random weights have none. Rows are added to a file as they are made:

  python -m benchmarks.throughput --batch 1 8 64
  ./nsys-run.sh --graphs graph -- python -m benchmarks.throughput --batch 1 8 64 --once
  python -m benchmarks.throughput --idle TRACE.sqlite   # into the rows
  python -m benchmarks.throughput --update README.md

Exit codes: 0 done, 2 usage, 3 model, 4 no GPU, 5 a file can't be read or written, 6 a trace that can't be
analysed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from analysis.engine.intervals import covered_ns
from benchmarks.arguments import positive
from experiments.audio import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES
from experiments.options import Options
from experiments.transcribe.command_line import guarded
from experiments.transcribe.decoding import Window, WindowDecoder
from experiments.transcribe.joined import held_out, join
from experiments.transcribe.long_form import Pcm, StretchDecoding
from experiments.transcribe.pipeline import Pipeline
from experiments.transcribe.together import Task, together
from experiments.transcribe.transcriber import SCOPE, configuration, load_model
from experiments.transcribe.windows import Stretch
from harness import environment, phases
from harness.errors import ExitCode, UserError
from harness.phases import HostTimer, NvtxAnnotator, PhaseClock
from harness.record import check_writable, code_label, write_json
from harness.report import screen
from harness.results import markdown, replace_between_marks

RESULTS = environment.PROJECT / "results" / "throughput.json"
FILE_S = 240
MARKS = ("<!-- throughput:begin -->", "<!-- throughput:end -->")
HEADER = ("windows at once", "from samples", "from files", "idle, samples", "idle, files", "ms per window")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or publish what was measured; returns an exit code of the harness."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.update:
        replace_between_marks(options.update, table(_load(options.json)), *MARKS)
    elif options.idle:
        _note_idle(options)
    elif options.once:
        measure(options)
    else:
        _load(options.json)  # before minutes of work
        check_writable(options.json, "--json")
        measure(options)
        screen().print(table(_load(options.json)), soft_wrap=True)


def measure(options: argparse.Namespace) -> None:
    """A row for each batch and source. `once`: one pass after warm-up, for a trace; its time is not kept."""
    cfg = configuration(options.model, options.scope)
    mechanisms = Options.from_config(cfg)

    from experiments import models  # and with it torch, which takes seconds
    from experiments.transcribe.static import StaticWindowDecoder

    device = models.device_for(options.device)
    if device == "cpu" and options.json == RESULTS and not options.once:
        raise UserError(
            "this benchmark is about a GPU, and torch finds none",
            "--device cpu --model tiny_random --json FILE, to see that it works",
            ExitCode.MACHINE,
        )
    loaded = load_model(cfg["model"], mechanisms.attention, "en", device)
    sound = join(held_out(), options.windows * WINDOW_S).samples[: options.windows * WINDOW_SAMPLES]
    decode = partial(_decode_window, prompt=loaded.prompt[:-1])
    with tempfile.TemporaryDirectory() as folder:
        files = _write(Path(folder), sound) if "files" in options.source else []
        for batch in options.batch:
            decoder = StaticWindowDecoder(loaded, mechanisms, batch)
            for source in options.source:
                run = partial(_from_files, files) if source == "files" else partial(_from_samples, sound)
                repeat = 1 if options.once else options.repeat
                times_s = _time(partial(run, decoder, decode), repeat, _pass_name(batch, source))
                if not options.once:
                    audio_s = len(sound) / SAMPLE_RATE_HZ
                    _add(options, device, batch, source, {"audio_s": audio_s, "times_s": times_s})


def _time(run: Callable[[], None], repeat: int, name: str) -> list[float]:
    """Seconds of each pass after one of warm-up; each is a range of that name in a trace."""
    run()
    times_s = []
    for _ in range(repeat):
        with PhaseClock(HostTimer(), NvtxAnnotator()).phase(name):
            began = time.perf_counter()
            run()
            times_s.append(time.perf_counter() - began)
    return times_s


def _from_samples(sound: np.ndarray, decoder: WindowDecoder, decode: Callable[..., StretchDecoding]) -> None:
    windows = sound.reshape(-1, WINDOW_SAMPLES)
    tasks = (Task("", n, decode(Stretch(0, pcm), 0.0, lambda _: None)) for n, pcm in enumerate(windows))
    for _ in together(tasks, decoder):
        pass


def _from_files(files: list[Path], decoder: WindowDecoder, decode: Callable[..., StretchDecoding]) -> None:
    for outcome in Pipeline(decoder, decode, "en", sequential=False).transcribe(files):
        if outcome.error:
            raise outcome.error


def _decode_window(
    sound: Pcm, offset_s: float, on_progress: Callable[[float], object], prompt: tuple[int, ...]
) -> StretchDecoding:
    """Each stretch is one window, whatever its timestamps: those of random weights mean nothing."""
    pcm = sound.window(0)
    yield Window(pcm, prompt)
    on_progress(len(pcm) / SAMPLE_RATE_HZ)
    return []


def _write(folder: Path, sound: np.ndarray) -> list[Path]:
    """The sound as FLAC files of a few minutes each."""
    files = []
    for number, start in enumerate(range(0, len(sound), FILE_S * SAMPLE_RATE_HZ)):
        files.append(folder / f"{number:03d}.flac")
        soundfile.write(files[-1], sound[start : start + FILE_S * SAMPLE_RATE_HZ], SAMPLE_RATE_HZ)
    return files


def _add(options: argparse.Namespace, device: str, batch: int, source: str, found: dict[str, Any]) -> None:
    """Put a row into the file, in place of the one with the same setting."""
    stamp = environment.stamp(device)
    row = {
        "batch": batch,
        "source": source,
        "model": options.model,
        "scope": options.scope,
        "machine": stamp["machine"],
        "date": datetime.now(UTC).date().isoformat(),
        "code": code_label(stamp["git"]["commit"], stamp["git"]["dirty"]),
        "idle_share": None,
        **found,
    }
    rows = [one for one in _load(options.json) if _key(one) != _key(row)]
    write_json(options.json, [*rows, row])


def _pass_name(batch: int, source: str) -> str:
    return f"{batch} windows at once from {source}"


def _note_idle(options: argparse.Namespace) -> None:
    """The idle shares in a recording of `--once`, into the newest row of each batch and source."""
    from analysis import Trace, TraceError

    rows = _load(options.json)
    check_writable(options.json, "--json")
    newest = {_pass_name(row["batch"], row["source"]): row for row in rows}
    try:
        with Trace.open(options.idle) as trace:
            found = idle_shares(trace.ranges, trace.work, newest.keys())
    except TraceError as error:
        raise UserError(str(error), error.hint, ExitCode.TRACE) from error
    if not found:
        raise UserError(
            f"{options.idle} has no GPU work in a pass that has a row in {options.json}",
            "measure first, then record --once",
        )
    for name, share in found.items():
        newest[name]["idle_share"] = share
    write_json(options.json, rows)


def idle_shares(ranges: pd.DataFrame, work: pd.DataFrame, names: Iterable[str]) -> dict[str, float]:
    """Of each pass in a recording: the share of its time in which the device did nothing.

    ranges, work: as a Trace has them. A pass ends when its last result has arrived, so its work lies within.
    """
    shares = {}
    for one in ranges[(ranges["domain"] == phases.DOMAIN) & ranges["name"].isin(names)].itertuples():
        begin, end = (work[edge].clip(one.start_ns, one.end_ns).to_numpy() for edge in ("start_ns", "end_ns"))
        busy_ns = covered_ns(np.zeros(len(work), dtype=np.int64), begin, end, 1)[0]
        if busy_ns:
            shares[str(one.name)] = float(1 - busy_ns / (one.end_ns - one.start_ns))
    return shares


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("batch", "source", "model", "scope", "machine"))


def _load(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none if there is no such file; UserError for anything else."""
    try:
        rows = json.loads(path.read_text())
        for row in rows:
            _ = _key(row), row["date"], row["code"], row["idle_share"], _speed(row)
        return list(rows)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError) as problem:
        raise UserError(
            f"{path} is no file of this benchmark ({type(problem).__name__}: {problem})",
            "--json ANOTHER_FILE",
            ExitCode.STORAGE,
        ) from None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for each batch of the newest rows' setting; real-time factors are medians. UserError
    without rows."""
    if not rows:
        raise UserError("nothing has been measured yet", "python -m benchmarks.throughput --batch 1 8 64")
    setting = _key(rows[-1])[2:]
    found = {(row["batch"], row["source"]): row for row in rows if _key(row)[2:] == setting}
    lines = []
    for batch in sorted({batch for batch, _ in found}):
        pcm, files = found.get((batch, "pcm")), found.get((batch, "files"))
        first = pcm or files
        lines.append(
            [
                str(batch),
                _factor(pcm),
                _factor(files),
                _share(pcm),
                _share(files),
                f"{1000 * WINDOW_S / _speed(first):.2f}" if first else "",
            ]
        )
    made = ", ".join(dict.fromkeys(f"{row['date']}, {row['code']}" for row in found.values()))
    model, scope, machine = setting
    return f"{markdown(HEADER, lines)}\n\n{machine}, {model}, scope {scope}, {made}"


def _speed(row: dict[str, Any]) -> float:
    """Seconds of sound per second."""
    return float(row["audio_s"] / median(row["times_s"]))


def _factor(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    speeds = sorted(row["audio_s"] / time_s for time_s in row["times_s"])
    return f"{_speed(row):,.0f}× ({speeds[0]:,.0f}–{speeds[-1]:,.0f})"


def _share(row: dict[str, Any] | None) -> str:
    return "–" if row is None or row["idle_share"] is None else f"{row['idle_share']:.1%}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--batch", type=positive, nargs="+", default=[1, 8, 64], help="windows at once (1 8 64)"
    )
    parser.add_argument(
        "--source",
        nargs="+",
        choices=("pcm", "files"),
        default=["pcm", "files"],
        help="samples in memory, FLAC files (both)",
    )
    parser.add_argument("--windows", type=positive, default=256, help="windows of sound in a pass (256)")
    parser.add_argument("--repeat", type=positive, default=5, help="passes after one of warm-up (5)")
    parser.add_argument("--once", action="store_true", help="one pass after warm-up, for a recording")
    parser.add_argument(
        "--model", default="whisper_small_random", help="a choice of conf/model (%(default)s)"
    )
    parser.add_argument("--scope", default=SCOPE, help="a scope of conf/scope (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--json", type=Path, default=RESULTS, metavar="FILE", help="of all rows (results/throughput.json)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--idle",
        type=Path,
        metavar="TRACE",
        help="measure nothing: put the idle shares of a recording of --once into their rows",
    )
    instead.add_argument(
        "--update", type=Path, metavar="README", help="measure nothing: put the table between its marks"
    )
    return parser


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of the libraries: theirs are not for who reads the table
    sys.exit(main())
