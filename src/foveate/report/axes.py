"""What the plots share: figures with a row for each arm, labels that fit, intervals and their scale."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from foveate.pages import LIGHT
from foveate.report import format as fmt

WIDE, NARROW = 880, 350
PER_INCH = 72  # matplotlib's SVG unit is the point: one unit is one CSS pixel at natural size
COLOUR = {
    "helps": LIGHT["helps"],
    "hurts": LIGHT["hurts"],
    "practically equal": LIGHT["accent"],
    "baseline": LIGHT["ink"],
}
LABEL, VALUE = 12.5, 12.0  # sizes of text
_GAP = 22  # between a row's texts and its axis
_MOST = 0.42  # largest share of the width for labels


def colour(arm: Mapping[str, Any]) -> str:
    """The colour of an arm's verdict."""
    return COLOUR.get(str(arm.get("verdict")), LIGHT["calm"])


def label(arm: Mapping[str, Any]) -> str:
    """An arm's name on one line."""
    return " ".join(str(arm.get("label") or arm.get("slug") or "?").split())


@lru_cache(4096)
def length(text: str, size: float) -> float:
    """The width of a text in pixels, in matplotlib's own font, which is a little wider than the page's."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]


def fit(text: str, pixels: float, size: float = LABEL) -> str:
    """Return the text on one line, cut only if it is wider than `pixels`."""
    text = " ".join(str(text).split())[:200]
    whole = length(text, size)
    if whole <= pixels:
        return text
    text = text[: int(len(text) * pixels / whole) + 2]  # about
    while text and length(text + "…", size) > pixels:
        text = text[:-1]
    return text.rstrip() + "…"


def rows_figure(
    labels: Sequence[str], values: Sequence[str], width: int, *, top: int = 8, step: int = 38
) -> tuple[Figure, Axes]:
    """Make a figure with a row for each label; labels are left and values right of the axis, or narrow, above it."""
    narrow, rows = width < WIDE, len(labels)
    step = 54 if narrow else step
    height = rows * step + 56 + top
    left, right = (
        (14, 14)
        if narrow
        else (min(_longest(labels, LABEL), _MOST * width) + _GAP + 4, _longest(values, VALUE) + _GAP + 4)
    )
    figure = Figure(figsize=(width / PER_INCH, height / PER_INCH))
    ax = figure.add_axes((left / width, 52 / height, (width - left - right) / width, rows * step / height))
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(5 if narrow else 7, steps=[1, 2, 5, 10]))
    ax.tick_params(length=0, pad=7)
    ax.xaxis.labelpad = 6
    place = blended_transform_factory(ax.transAxes, ax.transData)
    across = width - left - right
    for row, (text, value) in enumerate(zip(labels, values, strict=True)):
        if narrow:
            ax.text(
                0, row - 0.32, fit(text, across - length(value, 11) - 10, 12), transform=place, va="center", fontsize=12
            )
            ax.text(1, row - 0.32, value, transform=place, va="center", ha="right", fontsize=11, color=LIGHT["soft"])
        else:
            ax.text(
                -_GAP / across, row, fit(text, left - _GAP), transform=place, va="center", ha="right", fontsize=LABEL
            )
            ax.text(1 + _GAP / across, row, value, transform=place, va="center", fontsize=VALUE, color=LIGHT["soft"])
    return figure, ax


def tracks(ax: Axes, rows: int, narrow: bool, zero: float | None = None) -> None:
    """Draw the grid; on a narrow plot only next to the marks, as the labels are between them."""
    left, right = ax.get_xlim()
    bottoms = np.arange(rows) + (-0.12 if narrow else -0.5)
    tops = np.arange(rows) + (0.46 if narrow else 0.5)
    for tick in ax.get_xticks():
        if left <= tick <= right and tick != zero:
            ax.vlines(np.full(rows, tick), bottoms, tops, color=LIGHT["line"], linewidth=0.8, zorder=1)
    if zero is not None:
        ax.vlines(np.full(rows, zero), bottoms, tops, color=LIGHT["soft"], linewidth=1.2, zorder=1)


def middle(row: int, narrow: bool) -> float:
    """The height at which the marks of a row are drawn."""
    return row + 0.17 * narrow


def gaps(arm: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> list[float]:
    """The arm's differences from the baseline in points, one for each seed."""
    host = next((other.get("scores") or {} for other in arms if other.get("verdict") == "baseline"), {})
    own = arm.get("scores") or {}
    return [100 * (own[seed] - host[seed]) for seed in own if fmt.known(own[seed]) and fmt.known(host.get(seed))]


def reach(arm: Mapping[str, Any], arms: Sequence[Mapping[str, Any]]) -> list[float]:
    """All values that a plot of the arm's difference shows: the estimate, its interval and the seeds."""
    difference = arm.get("difference") or {}
    return [
        value
        for value in (difference.get("estimate"), difference.get("low"), difference.get("high"))
        if fmt.known(value)
    ] + gaps(arm, arms)


def near(arms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The arms whose differences are too small to see next to the others; none if all fit one scale.

    An arm is far if it reaches more than three times as far from 0 as the next one.
    """
    judged = [
        (max(map(abs, reach(arm, arms))), arm)
        for arm in arms
        if fmt.known((arm.get("difference") or {}).get("estimate"))
    ]
    sizes = sorted(max(size, 0.1) for size, _ in judged)
    jumps = [below for below, above in pairwise(sizes) if above > 3 * below]
    return [arm for size, arm in judged if size <= jumps[-1]] if jumps else []


def tick(value: float, _: Any) -> str:
    """A difference on an axis."""
    return "0" if abs(value) < 1e-9 else fmt.points(value, 2).rstrip("0").rstrip(".")


def named(name: str, width: int) -> str:
    """The name of a plot, with a suffix for its narrow form."""
    return f"{name}-narrow" if width < WIDE else name


def _longest(texts: Sequence[str], size: float) -> float:
    return max((length(text[:200], size) for text in texts), default=0)
