"""The plots of the training: score and losses over epochs, or a dot for each seed if there was one epoch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from foveate.pages import LIGHT
from foveate.report import axes
from foveate.report import format as fmt
from foveate.report.svg import Drawing, drawing, finish

Curve = NDArray[np.float64]  # (epochs, 2): epoch and value

_WIDTH, _HEIGHT = 300, 330
_LOG = 30  # losses that span more than this ratio have a logarithmic axis


def epochs(arms: Sequence[Mapping[str, Any]]) -> int:
    """The last epoch that any trial reached, 0 if none finished one."""
    return max(
        (
            int(row["epoch"])
            for arm in arms
            for curve in _histories(arm)
            for row in curve
            if fmt.known(row.get("epoch"))
        ),
        default=0,
    )


def curves(arms: Sequence[Mapping[str, Any]], measure: str = "accuracy") -> list[Drawing]:
    """Draw validation score and losses over epochs: a panel for each arm, on shared axes, with the baseline's mean."""
    paths = {name: [_curves(arm, name) for arm in arms] for name in ("val_score", "val_loss", "train_loss")}
    limits = [_limits(paths["val_score"]), _limits([*paths["val_loss"], *paths["train_loss"]])]
    if limits[0] is None:
        return []
    last = epochs(arms)
    host = next((k for k, arm in enumerate(arms) if arm.get("verdict") == "baseline"), None)
    drawings = []
    with drawing():
        for k, arm in enumerate(arms):
            if not any(np.isfinite(curve[:, 1]).any() for curve in paths["val_score"][k]):
                continue
            figure = Figure(figsize=(_WIDTH / axes.PER_INCH, _HEIGHT / axes.PER_INCH))
            title = axes.fit(axes.label(arm), _WIDTH - 14, 13)
            figure.text(0.02, 0.955, title, fontsize=13, color=LIGHT["ink"])
            score, loss = figure.add_axes((0.125, 0.545, 0.855, 0.33)), figure.add_axes((0.125, 0.125, 0.855, 0.3))
            behind = None if host in (None, k) else host
            _panel(score, [("val_score", paths["val_score"])], k, behind, axes.colour(arm))
            _panel(
                loss,
                [("val_loss", paths["val_loss"]), ("train_loss", paths["train_loss"])],
                k,
                behind,
                axes.colour(arm),
            )
            _style_axes(score, limits[0], last, f"Validation {axes.fit(measure, 120, 11)}, %")
            score.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
            _style_axes(loss, limits[1], last, "Loss: training solid, validation dotted")
            loss.set_xlabel("Epoch", labelpad=2)
            score.tick_params(labelbottom=False)
            drawings.append(
                finish(
                    figure,
                    f"curves-{k + 1}",
                    f"Validation {measure} in percent, and losses, over epochs: {axes.label(arm)}",
                )
            )
    return drawings


def one_epoch(arms: Sequence[Mapping[str, Any]], width: int, key: str, title: str) -> Drawing | None:
    """Draw the values of each arm after its only epoch: a dot for each seed, and a line at their mean."""
    shown = [
        (arm, values)
        for arm in arms
        if (values := [row[key] for curve in _histories(arm) for row in curve if fmt.known(row.get(key))])
    ]
    if not shown:
        return None
    narrow, percent = width < axes.WIDE, 100 if key == "val_score" else 1
    with drawing():
        means = [f"{percent * np.mean(values):.3g}" for _, values in shown]
        figure, ax = axes.rows_figure([axes.label(arm) for arm, _ in shown], means, width, step=30)
        every = [percent * value for _, values in shown for value in values]
        space = 0.05 * (max(every) - min(every)) or 0.1
        ax.set_xlim(min(every) - space, max(every) + space)
        axes.tracks(ax, len(shown), narrow)
        for row, (arm, values) in enumerate(shown):
            y = axes.middle(row, narrow)
            ax.plot(
                percent * np.array(values),
                [y] * len(values),
                "o",
                color=axes.colour(arm),
                markersize=7,
                alpha=0.7,
                zorder=3,
            )
            ax.plot(
                [percent * np.mean(values)] * 2, [y - 0.26, y + 0.26], color=axes.colour(arm), linewidth=2, zorder=2
            )
        ax.set_xlabel(title)
        words = "; ".join(f"{axes.label(arm)}: {mean}" for (arm, _), mean in zip(shown, means, strict=True))
        return finish(
            figure, axes.named(f"epoch-{key.replace('_', '-')}", width), f"{title}, a dot for each seed. Means: {words}"
        )


def _panel(
    ax: Axes, kinds: Sequence[tuple[str, Sequence[Sequence[Curve]]]], arm: int, behind: int | None, colour: str
) -> None:
    """Draw the seeds thin and their mean thick, with the baseline's mean behind."""
    for name, paths in kinds:
        dotted: dict[str, Any] = {"dashes": (1, 1.2)} if name == "val_loss" else {}
        if behind is not None and name != "val_loss":
            ax.plot(*_mean(paths[behind]).T, color=LIGHT["ink"], linewidth=1.2, dashes=(4, 2), alpha=0.7)
        for curve in paths[arm]:
            ax.plot(*curve.T, **_marked(curve), color=colour, linewidth=0.8, alpha=0.45, **dotted)
        mean = _mean(paths[arm])
        ax.plot(*mean.T, **_marked(mean), color=colour, linewidth=2.2, **dotted)


def _marked(curve: Curve) -> dict[str, Any]:
    """Return the marker of a curve of one point, which has no line."""
    return {"marker": "o", "markersize": 4} if np.isfinite(curve[:, 1]).sum() == 1 else {}


def _style_axes(ax: Axes, limits: tuple[float, float] | None, last: int, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=11, color=LIGHT["soft"], pad=5)
    ax.grid(axis="y", color=LIGHT["line"], linewidth=0.7)
    ax.set_xlim(1 - 0.03 * (last - 1) - 0.5 * (last == 1), last + 0.03 * (last - 1) + 0.5 * (last == 1))
    low, high = limits or (0.0, 1.0)
    if low > 0 and high / low > _LOG:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(low / 1.2, high * 1.2)
    else:
        ax.set_ylim(low - 0.04 * (high - low) - 1e-3, high + 0.04 * (high - low) + 1e-3)
        ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.tick_params(length=0, which="both")


def _limits(paths: Sequence[Sequence[Curve]]) -> tuple[float, float] | None:
    values = np.array([value for curves in paths for curve in curves for value in curve[:, 1] if np.isfinite(value)])
    return (float(values.min()), float(values.max())) if len(values) else None


def _histories(arm: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    yield from (arm.get("curves") or {}).values()


def _curves(arm: Mapping[str, Any], key: str) -> list[Curve]:
    return [
        np.array(
            [
                (row["epoch"], row[key] if fmt.known(row.get(key)) else np.nan)
                for row in rows
                if fmt.known(row.get("epoch"))
            ],
            float,
        ).reshape(-1, 2)
        for rows in _histories(arm)
    ]


def _mean(lines: Sequence[Curve]) -> Curve:
    every = sorted({float(epoch) for curve in lines for epoch in curve[:, 0]})
    known = [[value for curve in lines for at, value in curve if at == epoch and np.isfinite(value)] for epoch in every]
    return np.array(
        [(epoch, np.mean(values) if values else np.nan) for epoch, values in zip(every, known, strict=True)]
    ).reshape(-1, 2)
