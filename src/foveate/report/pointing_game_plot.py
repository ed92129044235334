"""The plot of the pointing game: how much of each gate lies inside the true boxes, against chance."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from foveate.pages import LIGHT
from foveate.report import axes
from foveate.report import format as fmt
from foveate.report.svg import Drawing, drawing, finish

KINDS = ("spatial", "row", "column")


def rows(arms: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """Every (arm, kind of gate, measurements), grouped by kind, as only gates of one kind have the same chance."""
    found = [
        (arm, kind, g)
        for arm in arms
        for kind, g in (arm.get("pointing_game") or {}).items()
        if g and fmt.known(g.get("mass"))
    ]
    return sorted(found, key=lambda row: KINDS.index(row[1]) if row[1] in KINDS else len(KINDS))


def pointing_game(arms: Sequence[Mapping[str, Any]], width: int = axes.WIDE) -> Drawing | None:
    """Draw the share of each gate and of its peaks inside the true boxes, and chance; None if no gate has positions."""
    shown = rows(arms)
    if not shown:
        return None
    narrow = width < axes.WIDE
    with drawing():
        labels = [f"{axes.label(arm)} · {' '.join(kind.split())[:40]}" for arm, kind, _ in shown]
        figure, ax = axes.rows_figure(labels, [""] * len(shown), width, top=26)
        values = [g[key] for _, _, g in shown for key in ("mass", "area", "pointing") if fmt.known(g.get(key))]
        ax.set_xlim(0, min(1.0, max(values) * 1.12))
        axes.tracks(ax, len(shown), narrow)
        for row, (_, _, g) in enumerate(shown):
            y = axes.middle(row, narrow)
            ax.plot(
                [g["area"], g["mass"]],
                [y, y],
                color=LIGHT["accent"],
                linewidth=2.5,
                alpha=0.4,
                solid_capstyle="butt",
                zorder=2,
            )
            ax.plot([g["area"]] * 2, [y - 0.2, y + 0.2], color=LIGHT["ink"], linewidth=2, zorder=3)
            if fmt.known(g.get("pointing")):
                hollow: dict[str, Any] = {
                    "markerfacecolor": LIGHT["paper"],
                    "markeredgecolor": LIGHT["accent"],
                    "markeredgewidth": 1.6,
                }
                ax.plot([g["pointing"]], [y], "o", markersize=8, **hollow, zorder=4, clip_on=False)
            ax.plot(
                [g["mass"]], [y], "o", color=LIGHT["accent"], markersize=9, markeredgecolor=LIGHT["paper"], zorder=5
            )
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        ax.set_xlabel("Share inside the true boxes")
        _key(ax, narrow)
        words = "; ".join(
            f"{name}: {fmt.share(g['mass'])} of the gate, {fmt.share(g['area'])} of the area"
            for name, (_, _, g) in zip(labels, shown, strict=True)
        )
        return finish(
            figure,
            axes.named("pointing-game", width),
            f"Share of the gate inside the true boxes against chance. {words}",
        )


def _key(ax: Axes, narrow: bool) -> None:
    steps = (88, 112, 0) if narrow else (100, 112, 0)
    marks = (
        ("●", LIGHT["accent"], "gate inside"),
        ("○", LIGHT["accent"], "peaks inside"),
        ("|", LIGHT["ink"], "chance"),
    )
    x = 0
    for step, (mark, colour, words) in zip(steps, marks, strict=True):
        for offset, text, shade, size in ((0, mark, colour, 15), (14, words, LIGHT["soft"], 11.5)):
            ax.annotate(
                text,
                (0, 1),
                (x + offset, 10),
                xycoords="axes fraction",
                textcoords="offset points",
                color=shade,
                fontsize=size,
            )
        x += step
