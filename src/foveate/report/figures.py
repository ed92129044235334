"""The plots of a study, drawn from `results.json`: each comes in a wide form and, where a phone needs it, a narrow one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from foveate.report import format as fmt
from foveate.report.svg import LIGHT, Drawing, drawing, finish

WIDE, NARROW = 880, 350
_PER_INCH = 72  # matplotlib's SVG unit is the point: one unit is one CSS pixel at natural size
COLOUR = {"helps": LIGHT["helps"], "hurts": LIGHT["hurts"]}


def forest(arms: Sequence[Mapping[str, Any]], width: int = WIDE, measure: str = "accuracy", name: str = "intervals") -> Drawing | None:
    """Each arm's difference from the baseline with its simultaneous interval; None without any difference."""
    arms = [arm for arm in arms if fmt.known((arm.get("difference") or {}).get("estimate"))]
    if not arms:
        return None
    narrow = width < WIDE
    with drawing():
        figure, ax = _rows_figure(len(arms), width, left=0.04 if narrow else 0.27, right=0.96 if narrow else 0.79)
        low, high = limits([arm["difference"] for arm in arms])
        margin = 0.04 * (high - low)
        ax.set_xlim(low - margin, high + margin)
        _tracks(ax, len(arms), narrow, zero=0)
        for row, arm in enumerate(arms):
            y = row + 0.17 * narrow
            _interval(ax, y, arm["difference"], COLOUR.get(arm.get("verdict", ""), LIGHT["calm"]))
            _row_label(ax, row, _label(arm, 26 if narrow else 36), fmt.difference(arm["difference"]), narrow)
        ax.set_xlabel(f"Difference in test {_line(measure, 24)} from the baseline, points")
        ax.xaxis.set_major_formatter(FuncFormatter(_tick))
        words = "; ".join(f"{_label(arm)}: {fmt.difference(arm['difference'])}" for arm in arms)
        return finish(figure, _name(name, narrow), f"Difference from the baseline in points, with intervals. {words}")


def limits(differences: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The span to draw: all differences with their intervals and 0, but one collapsed arm must not flatten the others."""
    spans = [[d[key] for key in ("estimate", "low", "high") if fmt.known(d.get(key))] for d in differences]
    extents = [max(map(abs, span)) for span in spans]
    bound = max(3 * float(np.median(extents)), 0.1)
    return max(min(0.0, *map(min, spans)), -bound), min(max(0.0, *map(max, spans)), bound)


def gain_against_cost(arms: Sequence[Mapping[str, Any]], width: int = WIDE) -> Drawing | None:
    """Points gained against measured latency, both with their intervals; None when no arm has both."""
    narrow = width < WIDE
    arms = [a for a in arms if fmt.known((a.get("difference") or {}).get("estimate")) and fmt.known(_latency(a).get("ratio"))]
    if not arms:
        return None
    with drawing():
        key = 21 * len(arms)
        height = 300 + key if narrow else max(360, key + 60)
        figure = Figure(figsize=(width / _PER_INCH, height / _PER_INCH))
        below = 54 + (key + 6) * narrow
        ax = figure.add_axes((0.125 if narrow else 0.075, below / height, 0.845 if narrow else 0.635, 1 - (below + 14) / height))
        low, high = limits([arm["difference"] for arm in arms])
        ax.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
        ax.axhline(0, color=LIGHT["soft"], linewidth=1.2, zorder=1)
        ax.axvline(1, color=LIGHT["soft"], linewidth=1.2, zorder=1)
        ax.grid(color=LIGHT["line"], linewidth=0.7)
        for k, arm in enumerate(arms):
            _point(ax, _latency(arm), arm["difference"], str(k + 1), COLOUR.get(arm.get("verdict", ""), LIGHT["calm"]))
            line = (key - 21 * k - 6 if narrow else height - 30 - 21 * k) / height
            figure.text(0.13 if narrow else 0.755, line, str(k + 1), fontsize=12, fontweight="bold", ha="right", color=LIGHT["soft"])
            figure.text(0.16 if narrow else 0.77, line, _label(arm, 30), fontsize=12)
        ax.set_xlabel("Measured latency, ratio to the plain model")
        ax.set_ylabel("Points gained")
        ax.yaxis.set_major_formatter(FuncFormatter(_tick))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}×"))
        ax.xaxis.set_major_locator(MaxNLocator(4 if narrow else 6, steps=[1, 2, 5, 10]))
        ax.tick_params(length=0)
        words = "; ".join(f"{_label(a)}: {fmt.points(a['difference']['estimate'])} points at {_latency(a)['ratio']:.2f}×" for a in arms)
        return finish(figure, _name("cost", narrow), f"Points gained against measured latency. {words}")


def gaze(arms: Sequence[Mapping[str, Any]], width: int = WIDE) -> Drawing | None:
    """Share of the gate and of its peaks inside the object's box, against chance; None when no gate has a place."""
    narrow = width < WIDE
    rows = [(arm, kind, g) for arm in arms for kind, g in (arm.get("gaze") or {}).items() if g and fmt.known(g.get("mass"))]
    if not rows:
        return None
    with drawing():
        figure, ax = _rows_figure(len(rows), width, left=0.04 if narrow else 0.38, right=0.93 if narrow else 0.96, top=26)
        values = [g[key] for _, _, g in rows for key in ("mass", "area", "pointing") if fmt.known(g.get(key))]
        ax.set_xlim(0, min(1.0, max(values) * 1.12))
        _tracks(ax, len(rows), narrow)
        for row, (arm, kind, g) in enumerate(rows):
            y = row + 0.17 * narrow
            ax.plot([g["area"], g["mass"]], [y, y], color=LIGHT["accent"], linewidth=2.5, alpha=0.4, solid_capstyle="butt", zorder=2)
            ax.plot([g["area"]] * 2, [y - 0.2, y + 0.2], color=LIGHT["ink"], linewidth=2, zorder=3)
            ax.plot([g["mass"]], [y], "o", color=LIGHT["accent"], markersize=9, markeredgecolor=LIGHT["paper"], zorder=4)
            if fmt.known(g.get("pointing")):
                ax.plot(
                    [g["pointing"]],
                    [y],
                    "o",
                    markersize=8,
                    markerfacecolor=LIGHT["paper"],
                    markeredgecolor=LIGHT["accent"],
                    markeredgewidth=1.6,
                    zorder=4,
                )
            _row_label(ax, row, f"{_label(arm, 27 if narrow else 36)} · {_line(kind, 12)}", "", narrow)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        _gaze_key(ax, narrow)
        words = "; ".join(f"{_label(a)}, {k}: {fmt.share(g['mass'])} of the gate, {fmt.share(g['area'])} of the area" for a, k, g in rows)
        return finish(figure, _name("gaze", narrow), f"Share of the gate inside the object's box against chance. {words}")


def curves(arms: Sequence[Mapping[str, Any]], measure: str = "accuracy") -> list[Drawing]:
    """Validation score over epochs, one small panel an arm on shared axes, the baseline's mean behind each."""
    paths = [[_curve(rows) for rows in (arm.get("curves") or {}).values()] for arm in arms]
    known = np.concatenate([curve.ravel() for curves in paths for curve in curves] or [np.empty(0)])
    if not np.isfinite(known).any():
        return []
    tops = np.concatenate([curve[:, 1] for curves in paths for curve in curves])
    low, high = float(np.nanmin(tops)), float(np.nanmax(tops))
    last = max(curve[:, 0].max() for curves in paths for curve in curves if len(curve))
    baseline = next((_mean_curve(p) for arm, p in zip(arms, paths, strict=True) if arm.get("verdict") == "baseline"), None)
    drawings = []
    with drawing():
        for k, (arm, lines) in enumerate(zip(arms, paths, strict=True)):
            if not any(np.isfinite(curve[:, 1]).any() for curve in lines):
                continue
            figure = Figure(figsize=(300 / _PER_INCH, 196 / _PER_INCH))
            ax = figure.add_axes((0.115, 0.17, 0.86, 0.68))
            ax.set_title(_label(arm, 34), loc="left", fontsize=13, color=LIGHT["ink"], pad=9)
            ax.grid(axis="y", color=LIGHT["line"], linewidth=0.7)
            is_baseline = arm.get("verdict") == "baseline"
            colour = COLOUR.get(arm.get("verdict", ""), LIGHT["ink"] if is_baseline else LIGHT["calm"])
            if baseline is not None and not is_baseline:
                ax.plot(*baseline.T, color=LIGHT["ink"], linewidth=1.2, dashes=(2, 2), alpha=0.7)
            for curve in lines:
                ax.plot(*curve.T, color=colour, linewidth=0.8, alpha=0.45)
            ax.plot(*_mean_curve(lines).T, color=colour, linewidth=2.2)
            ax.set_xlim(1 if last > 1 else 0.5, last if last > 1 else 1.5)
            ax.set_ylim(low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.tick_params(length=0)
            drawings.append(finish(figure, f"curves-{k + 1}", f"Validation {measure} in percent over epochs: {_label(arm)}"))
    return drawings


def _rows_figure(rows: int, width: int, left: float, right: float, top: int = 8) -> tuple[Figure, Axes]:
    step = 48 if width < WIDE else 34
    height = rows * step + 50 + top
    figure = Figure(figsize=(width / _PER_INCH, height / _PER_INCH))
    ax = figure.add_axes((left, 46 / height, right - left, rows * step / height))
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(5 if width < WIDE else 7, steps=[1, 2, 5, 10]))
    ax.tick_params(length=0, pad=7)
    return figure, ax


def _tracks(ax: Axes, rows: int, narrow: bool, zero: float | None = None) -> None:
    """Draw the grid; on a narrow plot only beside the marks, for the labels stand between them."""
    left, right = ax.get_xlim()
    bottoms = np.arange(rows) + (-0.08 if narrow else -0.5)
    tops = np.arange(rows) + (0.42 if narrow else 0.5)
    for tick in ax.get_xticks():
        if left <= tick <= right and tick != zero:
            ax.vlines(np.full(rows, tick), bottoms, tops, color=LIGHT["line"], linewidth=0.8, zorder=1)
    if zero is not None:
        ax.vlines(np.full(rows, zero), bottoms, tops, color=LIGHT["soft"], linewidth=1.2, zorder=1)


def _interval(ax: Axes, y: float, difference: Mapping[str, Any], colour: str) -> None:
    left, right = ax.get_xlim()
    low, high, estimate = difference.get("low"), difference.get("high"), difference["estimate"]
    if fmt.known(low) and fmt.known(high):
        ax.plot([max(low, left), min(high, right)], [y, y], color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
        for end, marker, beyond in ((left, "<", low < left <= estimate), (right, ">", high > right >= estimate)):
            if beyond:
                ax.plot([end], [y], marker, color=colour, markersize=6, clip_on=False)
    marker = "<" if estimate < left else ">" if estimate > right else "o"
    ax.plot(
        [min(max(estimate, left), right)], [y], marker, color=colour, markersize=9, markeredgecolor=LIGHT["paper"], zorder=3, clip_on=False
    )


def _row_label(ax: Axes, y: float, label: str, value: str, narrow: bool) -> None:
    place = blended_transform_factory(ax.transAxes, ax.transData)
    if narrow:
        ax.text(0, y - 0.3, label, transform=place, va="center", fontsize=12)
        ax.text(1, y - 0.3, value, transform=place, va="center", ha="right", fontsize=11, color=LIGHT["soft"])
    else:
        ax.text(-0.03, y, label, transform=place, va="center", ha="right", fontsize=12.5)
        ax.text(1.03, y, value, transform=place, va="center", fontsize=12, color=LIGHT["soft"])


def _point(ax: Axes, latency: Mapping[str, Any], difference: Mapping[str, Any], number: str, colour: str) -> None:
    x, y = latency["ratio"], difference["estimate"]
    bottom, top = ax.get_ylim()
    beyond = not bottom <= y <= top
    if fmt.known(latency.get("low")) and fmt.known(latency.get("high")) and not beyond:
        ax.plot([latency["low"], latency["high"]], [y, y], color=colour, linewidth=1.3, alpha=0.55, zorder=2)
    if fmt.known(difference.get("low")) and fmt.known(difference.get("high")):
        ax.plot([x, x], [max(difference["low"], bottom), min(difference["high"], top)], color=colour, linewidth=1.3, alpha=0.55, zorder=2)
    at = min(max(y, bottom + 0.04 * (top - bottom)), top - 0.04 * (top - bottom))
    ax.plot([x], [at], "o", color=colour, markersize=16, markeredgecolor=LIGHT["paper"], markeredgewidth=1.5, zorder=3)
    ax.annotate(number, (x, at), ha="center", va="center_baseline", fontsize=10, fontweight="bold", color=LIGHT["paper"], zorder=4)
    if beyond:
        below = y < bottom
        away = {"textcoords": "offset points", "ha": "left", "va": "center", "fontsize": 11, "color": colour}
        ax.annotate(f"{'▼' if below else '▲'} {fmt.points(y, 1)}", (x, at), (11, 0), **away)


def _tick(value: float, _: Any) -> str:
    return "0" if abs(value) < 1e-9 else fmt.points(value, 2).rstrip("0").rstrip(".")


def _gaze_key(ax: Axes, narrow: bool) -> None:
    steps = (88, 112, 0) if narrow else (100, 112, 0)
    marks = (("●", LIGHT["accent"], "gate inside"), ("○", LIGHT["accent"], "peaks inside"), ("|", LIGHT["ink"], "chance"))
    x = 0
    for step, (mark, colour, words) in zip(steps, marks, strict=True):
        for offset, text, shade, size in ((0, mark, colour, 15), (14, words, LIGHT["soft"], 11.5)):
            ax.annotate(text, (0, 1), (x + offset, 10), xycoords="axes fraction", textcoords="offset points", color=shade, fontsize=size)
        x += step


def _curve(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    points = [
        (row["epoch"], row["val_score"] if fmt.known(row.get("val_score")) else np.nan) for row in rows if fmt.known(row.get("epoch"))
    ]
    return np.array(points, float).reshape(-1, 2)


def _mean_curve(lines: Sequence[np.ndarray]) -> np.ndarray:
    epochs = sorted({float(epoch) for curve in lines for epoch in curve[:, 0]})
    known = [[value for curve in lines for at, value in curve if at == epoch and np.isfinite(value)] for epoch in epochs]
    return np.array([(epoch, np.mean(values) if values else np.nan) for epoch, values in zip(epochs, known, strict=True)]).reshape(-1, 2)


def _latency(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    return (arm.get("cost") or {}).get("latency") or {}


def _label(arm: Mapping[str, Any], most: int = 80) -> str:
    return _line(arm.get("label") or arm.get("slug") or "?", most)


def _line(text: Any, most: int) -> str:
    """Return the text on one line of at most `most` characters."""
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _name(name: str, narrow: bool) -> str:
    return f"{name}-narrow" if narrow else name
