"""The plot of what a gain costs: points gained against measured latency, with a line through the efficient arms."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from foveate.pages import LIGHT
from foveate.report import axes
from foveate.report import format as fmt
from foveate.report.svg import Drawing, drawing, finish

_LINE = 21  # pixels for each line of the key
_KEY = 12  # size of its text


def gain_against_cost(
    arms: Sequence[Mapping[str, Any]],
    width: int = axes.WIDE,
    *,
    name: str = "cost",
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> Drawing | None:
    """Draw points gained against latency with intervals, and join the efficient arms; None if no arm has both.

    `shown` are the arms to draw, all by default; the plain host is always drawn.
    """
    every = [
        arm
        for arm in sorted(arms, key=lambda arm: not _is_host(arm))
        if _is_host(arm) or (fmt.known(_gain(arm)) and fmt.known(_latency(arm).get("ratio")))
    ]
    kept = [arm for arm in every if _is_host(arm) or shown is None or arm in shown]
    if all(_is_host(arm) for arm in kept):
        return None
    narrow = width < axes.WIDE
    with drawing():
        numbers = [str(every.index(arm)) if not _is_host(arm) else "" for arm in kept]
        figure, ax = _figure(numbers, [axes.label(arm) for arm in kept], width)
        spans = [value for arm in kept for value in (_gain(arm), *_ends(arm.get("difference"))) if fmt.known(value)]
        low, high = min(0.0, *spans), max(0.0, *spans)
        space = 0.08 * (high - low) or 1.0
        ax.set_ylim(low - space, high + space)
        ax.axhline(0, color=LIGHT["soft"], linewidth=1.2, zorder=1)
        ax.axvline(1, color=LIGHT["soft"], linewidth=1.2, zorder=1)
        ax.grid(color=LIGHT["line"], linewidth=0.7)
        joined = [arm for arm in front(every) if arm in kept]
        ax.plot(
            [_ratio(arm) for arm in joined],
            [_gain(arm) for arm in joined],
            color=LIGHT["ink"],
            linewidth=1.4,
            dashes=(3, 2),
            zorder=2,
        )
        for number, arm in zip(numbers, kept, strict=True):
            _point(ax, arm, number)
        ax.set_xlabel("Measured latency, ratio to the plain model")
        ax.set_ylabel("Points gained")
        ax.yaxis.set_major_formatter(FuncFormatter(axes.tick))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}×"))
        ax.xaxis.set_major_locator(MaxNLocator(4 if narrow else 6, steps=[1, 2, 5, 10]))
        ax.tick_params(length=0)
        words = "; ".join(f"{axes.label(arm)}: {fmt.points(_gain(arm))} points at {_ratio(arm):.2f}×" for arm in kept)
        best = ", ".join(axes.label(arm) for arm in joined)
        return finish(
            figure, axes.named(name, width), f"Points gained against measured latency. {words}. Efficient: {best}"
        )


def front(arms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The efficient arms by latency: no other arm is as fast and gains more, or is faster and gains as much."""
    found: list[Mapping[str, Any]] = []
    for arm in sorted(arms, key=lambda arm: (_ratio(arm), -_gain(arm))):
        if not found or _gain(arm) > _gain(found[-1]):
            found.append(arm)
    return found


def _figure(numbers: Sequence[str], labels: Sequence[str], width: int) -> tuple[Figure, Axes]:
    """Make the axes, with a key of the arms beside them, or on a narrow plot below."""
    narrow, key = width < axes.WIDE, _LINE * len(labels)
    height = 300 + key if narrow else max(360, key + 60)
    beside = 0 if narrow else min(max(axes.length(text[:200], _KEY) for text in labels), 0.4 * width) + 48
    left, below = (46 if narrow else 64), 54 + (key + 6) * narrow
    figure = Figure(figsize=(width / axes.PER_INCH, height / axes.PER_INCH))
    ax = figure.add_axes(
        (left / width, below / height, (width - left - beside - 12) / width, (height - below - 14) / height)
    )
    x = 44 if narrow else width - beside + 26
    for k, (number, text) in enumerate(zip(numbers, labels, strict=True)):
        line = (key - _LINE * k - 6 if narrow else height - 30 - _LINE * k) / height
        figure.text(
            (x - 8) / width, line, number or "■", fontsize=_KEY, fontweight="bold", ha="right", color=LIGHT["soft"]
        )
        figure.text(x / width, line, axes.fit(text, width - x - 4, _KEY), fontsize=_KEY)
    return figure, ax


def _point(ax: Axes, arm: Mapping[str, Any], number: str) -> None:
    x, y, colour = _ratio(arm), _gain(arm), axes.colour(arm)
    for ends, line in ((_ends(_latency(arm)), "x"), (_ends(arm.get("difference")), "y")):
        if ends and number:
            ax.plot(
                *((ends, (y, y)) if line == "x" else ((x, x), ends)), color=colour, linewidth=1.3, alpha=0.55, zorder=2
            )
    ax.plot(
        [x],
        [y],
        "o" if number else "s",
        color=colour,
        markersize=16 if number else 10,
        markeredgecolor=LIGHT["paper"],
        zorder=3,
    )
    ax.annotate(
        number,
        (x, y),
        ha="center",
        va="center_baseline",
        fontsize=10,
        fontweight="bold",
        color=LIGHT["paper"],
        zorder=4,
    )


def _is_host(arm: Mapping[str, Any]) -> bool:
    return arm.get("verdict") == "baseline"


def _gain(arm: Mapping[str, Any]) -> Any:
    return 0.0 if _is_host(arm) else (arm.get("difference") or {}).get("estimate")


def _ratio(arm: Mapping[str, Any]) -> float:
    return 1.0 if _is_host(arm) else _latency(arm)["ratio"]


def _ends(record: Mapping[str, Any] | None) -> tuple[float, float] | tuple[()]:
    low, high = (record or {}).get("low"), (record or {}).get("high")
    return (low, high) if fmt.known(low) and fmt.known(high) else ()


def _latency(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    return (arm.get("cost") or {}).get("latency") or {}
