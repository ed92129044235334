"""The plot of intervals: each difference from the baseline, its simultaneous interval, and its seeds one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from foveate.pages import LIGHT
from foveate.report import axes
from foveate.report import format as fmt
from foveate.report.svg import Drawing, drawing, finish


def forest(
    arms: Sequence[Mapping[str, Any]],
    width: int = axes.WIDE,
    *,
    measure: str = "accuracy",
    name: str = "intervals",
    margin: float | None = None,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> Drawing | None:
    """Draw each arm's difference with its whole interval, and a dot for each seed; None without any difference.

    `shown` are the arms to draw, all by default. Differences within ±`margin` points lie on a band.
    """
    shown = [
        arm for arm in (arms if shown is None else shown) if fmt.known((arm.get("difference") or {}).get("estimate"))
    ]
    if not shown:
        return None
    narrow = width < axes.WIDE
    values = [fmt.difference(arm["difference"]) for arm in shown]
    with drawing():
        figure, ax = axes.rows_figure([axes.label(arm) for arm in shown], values, width)
        spans = [value for arm in shown for value in axes.reach(arm, arms)]
        low, high = min(0.0, *spans), max(0.0, *spans)
        space = 0.04 * (high - low) or 1.0
        ax.set_xlim(low - space, high + space)
        if fmt.known(margin):
            left, right = ax.get_xlim()
            ax.axvspan(max(-margin, left), min(margin, right), color=LIGHT["accent"], alpha=0.07, linewidth=0, zorder=0)
        axes.tracks(ax, len(shown), narrow, zero=0)
        for row, arm in enumerate(shown):
            _interval(ax, axes.middle(row, narrow), arm["difference"], axes.colour(arm))
            seeds = axes.gaps(arm, arms)
            ax.plot(
                seeds,
                [axes.middle(row, narrow) + 0.26] * len(seeds),
                "o",
                color=axes.colour(arm),
                markersize=3.6,
                alpha=0.6,
            )
        ax.set_xlabel(f"Difference in {axes.fit(measure, 150, 11.5)} from the baseline, points")
        ax.xaxis.set_major_formatter(FuncFormatter(axes.tick))
        words = "; ".join(f"{axes.label(arm)}: {value}" for arm, value in zip(shown, values, strict=True))
        return finish(
            figure, axes.named(name, width), f"Difference from the baseline in points, with intervals. {words}"
        )


def _interval(ax: Axes, y: float, difference: Mapping[str, Any], colour: str) -> None:
    low, high = difference.get("low"), difference.get("high")
    if fmt.known(low) and fmt.known(high):
        ax.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
    ax.plot([difference["estimate"]], [y], "o", color=colour, markersize=9, markeredgecolor=LIGHT["paper"], zorder=3)
