"""The table and the plots of the growth of each mechanism's time."""

import math
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from foveate.report.svg import LIGHT, drawing, finish

CLONE = "clone"
# Colours of medium lightness that colour-blind readers can distinguish, for light and dark pages.
COLOURS = ("#3b83bd", "#d55e00", "#009e73", "#c46a9f", "#b8860b", "#7a6fd0")
MARKERS = "osD^vP"
WIDTH, HEIGHT, PER_INCH = 760, 620, 72

Points = dict[str, list[tuple[float, float]]]  # by call: (batch size or pixels, milliseconds)


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield, for each series, a table of the time per unit at the largest size over the smallest, and the plot."""
    panels = _panels(record)
    for series in dict.fromkeys(series for series, _, _ in panels):
        here = {", ".join(place): points for (name, *place), points in panels.items() if name == series}
        yield from ("", f"| {TITLES[series]} | {' | '.join(here)} |")
        yield "|---|" + "---:|" * len(here)
        for name in next(iter(here.values())):
            yield f"| {name} | {' | '.join(f'{_growth(points[name]):.2f}×' for points in here.values())} |"
        yield from ("", f"![{ALT[series]}](images/growth-{series}.svg)")


TITLES = {"batch": "time per sample, largest batch over one", "pixels": "time per pixel, largest map over smallest"}
ALT = {
    "batch": "Milliseconds per sample against the batch size, for clone and every mechanism",
    "pixels": "Milliseconds per call against the pixels of a map, for clone and every mechanism",
}


def plots(record: dict[str, Any]) -> dict[str, str]:
    """Return the SVG of each series by file name: a panel for each measure and layout."""
    panels = _panels(record)
    return {
        f"growth-{series}.svg": _plot(series, {key[1:]: points for key, points in panels.items() if key[0] == series})
        for series in dict.fromkeys(series for series, _, _ in panels)
    }


def _panels(record: dict[str, Any]) -> dict[tuple[str, str, str], Points]:
    panels: dict[tuple[str, str, str], Points] = {}
    for result in record["results"]:
        n, _, h, w = result["shape"]
        points = panels.setdefault((result["series"], result["measure"], result["layout"]), {})
        for name, timing in result["calls"].items():
            points.setdefault(name, []).append((n if result["series"] == "batch" else h * w, timing["ms"]))
    return panels


def _growth(points: list[tuple[float, float]]) -> float:
    (near, first), (far, last) = points[0], points[-1]
    return (last / far) / (first / near)


def _plot(series: str, panels: dict[tuple[str, str], Points]) -> str:
    with drawing():
        figure = Figure(figsize=(WIDTH / PER_INCH, HEIGHT / PER_INCH))
        columns = 2
        axes = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False, sharex=True)
        figure.subplots_adjust(left=0.09, right=0.985, bottom=0.16, top=0.95, wspace=0.16, hspace=0.2)
        for (place, points), ax in zip(panels.items(), axes.flat, strict=False):
            ax.set_title(", ".join(place), fontsize=12, loc="left")
            ax.set_xscale("log", base=2)
            if series == "pixels":
                ax.set_yscale("log")
            for k, (name, values) in enumerate(points.items()):
                xs, ms = zip(*values, strict=True)
                ys = [time / x for x, time in values] if series == "batch" else ms
                style: dict[str, Any] = {"color": COLOURS[k - 1], "marker": MARKERS[k - 1], "markersize": 4}
                ax.plot(
                    xs,
                    ys,
                    label=name,
                    linewidth=1.6,
                    **({"color": LIGHT["soft"], "linestyle": "--"} if name == CLONE else style),
                )
            ax.grid(color=LIGHT["line"], linewidth=0.7)
            ax.xaxis.set_major_locator(FixedLocator([x for x, _ in points[CLONE]]))
            ax.xaxis.set_major_formatter(
                FuncFormatter(lambda value, _: _pixels(value) if series == "pixels" else f"{value:g}")
            )
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_minor_locator(NullLocator())
            if series == "batch":
                ax.set_ylim(bottom=0)
            ax.tick_params(length=0)
        for row in axes:
            row[0].set_ylabel("ms per sample" if series == "batch" else "ms per call")
        for ax in axes[-1]:
            ax.set_xlabel(
                "batch size (N, 256, 28, 28)" if series == "batch" else "height × width, pixels, of a map (8, 64, H, W)"
            )
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="lower center",
            ncols=len(names),
            frameon=False,
            fontsize=11.5,
            handlelength=1.6,
            columnspacing=1.4,
        )
        return finish(figure, f"growth-{series}", ALT[series]).file


def _pixels(value: float) -> str:
    side = round(math.sqrt(value))
    return f"{side}²"
