"""The model card: README.md and curve.png of a checkpoint, from its evaluation.json and training.json.

python -m experiments.train.card experiments/checkpoint
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from experiments.evaluate.tables import percent, seconds
from experiments.train import curve
from experiments.train.record import FILE_NAME as TRAINING
from harness.errors import ExitCode, UserError
from harness.record import code_label

EVALUATION = "evaluation.json"
TEMPLATE = Path(__file__).with_name("card.md")


def write_card(folder: Path) -> None:
    """Write README.md and curve.png into `folder`; UserError if a JSON file is missing or not ours."""
    evaluation = _read(folder / EVALUATION, f"python -m experiments.evaluate --json {folder / EVALUATION}")
    training = _read(folder / TRAINING, "python -m experiments.train, which writes it")
    try:
        card = render(evaluation, training)
        figure = curve.draw(training)
    except (KeyError, TypeError) as problem:
        raise UserError(
            f"{EVALUATION} or {TRAINING} in {folder} lacks {problem}",
            "write both anew with this version",
            ExitCode.INPUT,
        ) from problem
    (folder / "README.md").write_text(card)
    figure.savefig(folder / "curve.png")


def _read(path: Path, hint: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise UserError(f"{path} can't be read ({reason})", hint, ExitCode.INPUT) from problem


def render(evaluation: dict[str, Any], training: dict[str, Any]) -> str:
    """The card as Markdown. Every number in it comes from the two records."""
    return Template(TEMPLATE.read_text()).substitute(_measured(evaluation) | _made(training))


def _measured(found: dict[str, Any]) -> dict[str, str]:
    made, model = found["made"], found["model"]
    versions = ", ".join(f"{name} {made['packages'][name]}" for name in ("torch", "transformers", "jiwer"))
    code = code_label(made["commit"], made["dirty"])
    return {
        "parameters": f"{model['parameters'] / 1e6:.1f} million",
        "name": model["name"],
        "clips": str(found["audio"]["clips"]),
        "minutes": f"{found['audio']['seconds'] / 60:.0f}",
        "audio": found["audio"]["name"],
        "wer": percent(found["words"]["all"]["wer"]),
        "measured": f"on {made['machine']} in {model['dtype']}, {made['date']}, {code} ({versions})",
        "words": _words(found["words"]),
        "words_how": _words_how(found["words"]["all"]),
        "timestamps": _part(found["timestamps"], _timestamps),
        "draft": _part(found["draft"], _draft),
        "transformers": _part(found["transformers"], _transformers),
        "robustness": _part(found["robustness"], _robustness),
        "files": _table(
            ("file", "bytes"), [(f"`{name}`", f"{size:,}") for name, size in model["files"].items()]
        ),
    }


def _part(found: dict[str, Any], written: Callable[[dict[str, Any]], str]) -> str:
    return f"Not measured: {found['skipped']}." if "skipped" in found else written(found)


def _words(found: dict[str, Any]) -> str:
    rows = [
        (name, str(r["clips"]), str(r["words"]), percent(r["wer"]), percent(r["cer"]))
        for name, r in {"all": found["all"], **found["conditions"]}.items()
    ]
    return _table(("clips", "number", "words", "WER", "CER"), rows)


def _words_how(rates: dict[str, Any]) -> str:
    how = (
        f"By {rates['library']}, after Whisper's normaliser (`{rates['normalizer']}`); greedy, the project's "
        "own decoder. "
    )
    counts = (rates[name] for name in ("substitutions", "deletions", "insertions"))
    how += "{} words are replaced, {} left out and {} added.".format(*counts)
    if rates["worst"]:
        worst = "\n\n".join(f"{clip['source']}\n{clip['alignment']}" for clip in rates["worst"])
        how += f" The clips with the most errors:\n\n```\n{worst}\n```"
    return how


def _timestamps(found: dict[str, Any]) -> str:
    header = (
        "clips",
        "sentences",
        f"both ends within {found['within_s']} s",
        "start: median error",
        "95% below",
        "end: median error",
        "95% below",
    )
    keys = ("start_error_median_s", "start_error_p95_s", "end_error_median_s", "end_error_p95_s")
    rows = [
        (name, str(r["segments"]), percent(r["share_within"]), *(seconds(r[key]) for key in keys))
        for name, r in {"all": found["all"], **found["conditions"]}.items()
    ]
    return (
        f"By transformers' `generate(return_timestamps=True)`, on {found['clips']} clips; each true sentence "
        "is compared with the segment that shares the most time with it "
        f"({found['all']['unmatched']} have none). "
        f"The text that comes with the times has {percent(found['wer'])} WER.\n\n{_table(header, rows)}"
    )


def _draft(found: dict[str, Any]) -> str:
    drafted = found["without_timestamps"]["tokens_per_verification"]
    rows = [
        (
            name.replace("_", " "),
            str(r["positions"]),
            percent(r["share"]),
            *("–" if n is None else f"{n:.2f}" for n in r["tokens_per_verification"].values()),
        )
        for name, r in found.items()
    ]
    table = _table(("prompt", "tokens", "agreement", *(f"{k} drafted" for k in drafted)), rows)
    return (
        "Share of the model's own greedy tokens (end token included) that the draft proposes, and the tokens "
        "that each pass of the model would yield in speculative decoding, counted from that agreement, by "
        "the number of drafted tokens:"
        f"\n\n{table}"
    )


def _transformers(found: dict[str, Any]) -> str:
    said = f"Its pipeline, greedy, gives exactly the same text for {found['same']} of {found['clips']} clips."
    rows = [(row["source"], row["project"], row["transformers"]) for row in found["differences"]]
    table = _table(("clip", "the project's decoder", "transformers"), rows)
    return f"{said}\n\n{table}" if rows else said


def _robustness(found: dict[str, Any]) -> str:
    header = ("30 s of", "no-speech probability", "text", "text with timestamps", "repeats without end")
    rows = []
    for row in found["signals"]:
        said = [row[form] for form in ("without_timestamps", "with_timestamps")]
        texts = [f"{one['text'] or '(none)'}, {one['tokens']} tokens" for one in said]
        endless = "yes" if any(one["endless"] for one in said) else "no"
        rows.append((row["signal"], f"{row['no_speech']:.3f}", *texts, endless))
    return _table(header, rows)


def _made(training: dict[str, Any]) -> dict[str, str]:
    recipe, corpus = training["recipe"], training["corpus"]
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    shares = corpus["sentence_shares"]
    return {
        "encoder_layers": str(recipe["encoder_layers"]),
        "decoder_layers": str(recipe["decoder_layers"]),
        "d_model": str(recipe["d_model"]),
        "shares": " : ".join(f"{shares[kind]:.0%}" for kind in ("grammar", "random", "numbers")),
        "vocabulary": f"{corpus['words']:,}",
        "one_in": str(corpus["held_out_sentences_one_in"]),
        "accents": str(corpus["accents"]),
        "voices": str(corpus["voices"]),
        "held_out_voices": str(corpus["held_out_voices"]),
        "hours": f"{recipe['hours']:g}",
        "draft_hours": f"{recipe['draft_hours']:g}",
        "no_speech": f"{corpus['no_speech_share']:.0%}",
        "with_timestamps": f"{corpus['timestamps_share']:.0%}",
        "learning_rate": f"{recipe['peak_learning_rate']:g}",
        "draft_steps": f"{recipe['draft_stage']['steps']:,}",
        "stages": _stages(recipe["stages"], training["model"]),
        "trained": (
            f"Trained on {training['machine']}, {training['date']}, commit "
            f"{code_label(training['commit'], training['dirty'])} ({versions})"
        ),
        "seed": str(recipe["seed"]),
        "model_s": f"{training['training_s']['model']:.0f}",
        "draft_s": f"{training['training_s']['draft']:.0f}",
    }


def _stages(stages: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    last = {row["stage"]: row for row in rows}
    header = ("stage", "window", "batch", "steps", "CTC weight", "without noise", "loss", "accuracy")
    return _table(
        header,
        [
            (
                stage["name"],
                f"{stage['window_s']:g} s",
                str(stage["batch"]),
                f"{stage['steps']:,}",
                " to ".join(f"{weight:g}" for weight in dict.fromkeys(stage["ctc"])),
                f"{stage['untouched']:.0%}",
                f"{last[stage['name']]['loss']:.3f}",
                percent(last[stage["name"]]["accuracy"]),
            )
            for stage in stages
        ],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card of the folder that is named; returns an exit code of the harness."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.train.card", description="Write README.md and curve.png of a checkpoint."
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    try:
        write_card(folder)
    except UserError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(UserError(str(error), "a folder that can be written to").report(), file=sys.stderr)
        return ExitCode.STORAGE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
