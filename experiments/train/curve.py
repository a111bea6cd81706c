"""The figure of a training run: how model and draft learned, stage by stage."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from analysis.plots.style import COPY, DEVICE, HOST, INK, MUTED, styled
from harness.record import code_label

Rows = list[dict[str, Any]]
SHADES = ("#F3F4F6", "white")


@styled()
def draw(training: dict[str, Any]) -> Figure:
    """Loss (log) above, shares below; the model on the left, its draft on the right. training: the record."""
    model, draft = training["model"], training["draft"]
    figure = Figure(figsize=(11, 6.2), dpi=150, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(rect=(0.005, 0.045, 0.99, 0.835), hspace=0.04, wspace=0.03)
    _head(figure, training)
    (losses, draft_loss), (accuracy, agreement) = figure.subplots(
        2, 2, sharex="col", width_ratios=(2.3, 1), height_ratios=(1.15, 1)
    )
    _stages(losses, model, named=True)
    _stages(accuracy, model, named=False)
    _line(losses, model, "loss", DEVICE, "tokens")
    _line(losses, model, "ctc", HOST, "CTC (encoder only)")
    losses.legend(loc="upper right")
    _line(accuracy, model, "accuracy", DEVICE)
    _line(draft_loss, draft, "loss", COPY)
    _line(agreement, draft, "agreement", COPY)
    _as_loss(losses, "model: loss per token, log")
    _as_loss(draft_loss, "draft: KL divergence, log")
    _as_share(accuracy, model, "accuracy", "model: tokens right")
    _as_share(agreement, draft, "agreement", "draft: agrees with model")
    return figure


def _head(figure: Figure, training: dict[str, Any]) -> None:
    accuracy, agreement = training["model"][-1]["accuracy"], training["draft"][-1]["agreement"]
    spent = training["training_s"]
    title = (
        f"{accuracy:.0%} of tokens right after {spent['model'] / 60:.0f} minutes; "
        f"the draft guesses {agreement:.0%} of the model's"
    )
    subtitle = (
        "On training windows, with noise and rooms; means over the steps between two points. "
        "Shaded: stages, by window length."
    )
    footer = (
        f"{training['machine']} · commit {code_label(training['commit'], training['dirty'])} · "
        f"{training['date']} · "
        f"{spent['model']:.0f} s for the model, {spent['draft']:.0f} s for the draft"
    )
    figure.text(0.012, 0.975, title, fontsize=15, fontweight="bold", va="top", color=INK)
    figure.text(0.012, 0.922, subtitle, fontsize=10.5, va="top", color=MUTED)
    figure.text(0.012, 0.015, footer, fontsize=8.5, va="bottom", color=MUTED)


def _stages(axes: Axes, rows: Rows, named: bool) -> None:
    """Shade every other stage; name each at the top."""
    first = 0
    axes.margins(x=0)
    for number, (name, group) in enumerate(itertools.groupby(rows, key=lambda row: row["stage"])):
        last = list(group)[-1]["step"]
        axes.axvspan(first, last, color=SHADES[number % 2], zorder=0, linewidth=0)
        if named:
            middle = (first + last) / 2
            transform = axes.get_xaxis_transform()
            axes.text(
                middle, 1.02, name, ha="center", va="bottom", fontsize=9, color=MUTED, transform=transform
            )
        first = last


def _line(axes: Axes, rows: Rows, key: str, colour: str, label: str | None = None) -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, label=label)


def _as_loss(axes: Axes, title: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(title)


def _as_share(axes: Axes, rows: Rows, key: str, title: str) -> None:
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel(title)
    axes.set_xlabel("step")
    last = rows[-1]
    axes.annotate(
        f"{last[key]:.1%}",
        (last["step"], last[key]),
        (-6, -8),
        textcoords="offset points",
        ha="right",
        va="top",
        color=INK,
        fontweight="bold",
    )
