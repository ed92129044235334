"""Plots of precision against recall, and of confusion matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MultipleLocator

from foveate.gates.colour import CATEGORIES
from foveate.pages import LIGHT
from foveate.report import format as fmt
from foveate.report.axes import PER_INCH, fit, length
from foveate.report.svg import Drawing, drawing, finish

_NAMED = len(
    CATEGORIES
)  # most classes that have a colour and a line in the key; if there are more, all have one colour
_WRITTEN = 24  # most classes whose counts are written into the cells
_LONGEST = 18
_TITLE = 460  # pixels to which a title may widen a plot


def precision_recall(classes: Sequence[Mapping[str, Any]], precision: Sequence[Sequence[float | None]]) -> Drawing:
    """Draw the best precision at every recall, at IoU 0.50: one line for each class, and their mean.

    `classes` hold `name` and `ap50`; `precision` is for each of them at recalls 0, 0.01, ... 1, None for a class
    without ground truth.
    """
    recall = np.linspace(0, 1, 101)
    known = [k for k, curve in enumerate(precision) if fmt.known(curve[0])]
    curves = np.array([precision[k] for k in known], float).reshape(-1, 101)
    with drawing():
        figure = Figure(figsize=(640 / PER_INCH, 400 / PER_INCH))
        ax = figure.add_axes((0.09, 0.13, 0.58, 0.82))
        ax.grid(color=LIGHT["line"], linewidth=0.7)
        named, key = len(known) <= _NAMED, []
        for k, curve in zip(known, curves, strict=True):
            words = f"{_short(classes[k]['name'])}  {fmt.score(classes[k].get('ap50'))}"
            colour = "#{:02x}{:02x}{:02x}".format(*CATEGORIES[k % _NAMED]) if named else LIGHT["calm"]
            (line,) = ax.plot(recall, curve, color=colour, linewidth=1.6 if named else 0.6, alpha=1 if named else 0.5)
            key += [(line, words)] if named else []
        if len(known) != 1 and known:
            mean = np.nanmean([classes[k]["ap50"] for k in known])
            (line,) = ax.plot(recall, curves.mean(0), color=LIGHT["ink"], linewidth=2.4)
            key.append((line, f"all {len(known)} classes  {fmt.score(float(mean))}"))
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.01)
        for axis, title in ((ax.xaxis, "Recall"), (ax.yaxis, "Precision")):
            axis.set_major_locator(MultipleLocator(0.2))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
            axis.set_label_text(title)
        ax.tick_params(length=0, pad=7)
        if key:  # matplotlib itself would leave out a label that begins with "_"
            place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.03, 1), "borderaxespad": 0}
            legend = ax.legend(
                *zip(*key, strict=True), **place, frameon=False, title="AP50 %", alignment="left", fontsize=11
            )
            legend.get_title().set_color(LIGHT["soft"])
        summary = "; ".join(
            f"{classes[k]['name']}: AP50 {fmt.score(classes[k].get('ap50'), unit=True)}" for k in known[:_NAMED]
        )
        return finish(figure, "precision-recall", f"Precision against recall at IoU 0.50. {summary}")


def confusion(
    names: Sequence[str], matrix: Sequence[Sequence[int]], title: str = "", name: str = "confusion"
) -> Drawing:
    """Draw the true classes (rows) against the predicted ones (columns): counts, shaded by their share of the row.

    A detector's matrix has one more row, background, for false detections, and one more column, missed, for objects
    without a detection.
    """
    counts = np.asarray(matrix, float)
    boxes = len(matrix) > len(names)
    rows, columns = [*names, *(["background"] if boxes else [])], [*names, *(["missed"] if boxes else [])]
    side = min(46, 900 / len(rows))
    size = min(11.5, 0.7 * side)
    with drawing():
        longest = max(length(_short(name), size) for name in (*rows, *columns))
        margin, head = longest + 34, 0.75 * longest + 46 + 22 * bool(title)
        across, down = margin + side * len(columns) + 10, head + side * len(rows) + 10
        across = max(across, min(length(title, 13) + 16, _TITLE))
        figure = Figure(figsize=(across / PER_INCH, down / PER_INCH))
        ax = figure.add_axes((margin / across, 10 / down, side * len(columns) / across, side * len(rows) / down))
        ax.set_xlim(0, len(columns))
        ax.set_ylim(len(rows), 0)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for row, column in np.argwhere(counts > 0).tolist():
            colour = LIGHT["helps"] if row == column else LIGHT["hurts"]
            ax.add_patch(
                Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.08 + 0.47 * shares[row, column], linewidth=0)
            )
            if len(names) <= _WRITTEN:
                ax.text(
                    column + 0.5,
                    row + 0.5,
                    f"{counts[row, column]:.0f}",
                    ha="center",
                    va="center_baseline",
                    fontsize=11,
                )
        ax.hlines(range(len(rows) + 1), 0, len(columns), color=LIGHT["line"], linewidth=0.7)
        ax.vlines(range(len(columns) + 1), 0, len(rows), color=LIGHT["line"], linewidth=0.7)
        ax.xaxis.tick_top()
        ax.set_xticks(
            np.arange(len(columns)) + 0.5, [_short(name) for name in columns], rotation=45, ha="left", fontsize=size
        )
        ax.set_yticks(np.arange(len(rows)) + 0.5, [_short(name) for name in rows], fontsize=size)
        ax.tick_params(length=0)
        ax.set_ylabel("True class")
        ax.yaxis.set_label_coords(-(margin - 14) / (side * len(columns)), 0.5)
        ax.set_xlabel("Predicted class")
        ax.xaxis.set_label_coords(0.5, 1 + (head - (40 if title else 18)) / (side * len(rows)))
        if title:
            figure.text(8 / across, 1 - 18 / down, fit(title, across - 16, 13), fontsize=13)
        summary = f"{int(counts.trace())} correct"
        if boxes:
            summary += f", {int(counts[:-1, -1].sum())} missed, {int(counts[-1, :-1].sum())} false"
        return finish(
            figure,
            name,
            f"{title + ': ' if title else ''}True classes, by row, against predicted ones, by column: {summary}",
        )


def _short(name: Any) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
