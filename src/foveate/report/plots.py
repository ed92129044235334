"""All plots of a study that have something to show."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from foveate.report import axes, results_table
from foveate.report.confusion_plots import confusion
from foveate.report.cost_plot import gain_against_cost
from foveate.report.forest_plot import forest
from foveate.report.pointing_game_plot import pointing_game
from foveate.report.svg import Drawing
from foveate.report.training_plots import curves, epochs, one_epoch

MOST_CLASSES = 24  # the most classes that are drawn: those that change most

Both = tuple[Drawing, Drawing]  # the wide form for a desktop, the narrow one for a phone


@dataclass(frozen=True)
class Plots:
    """The plots by section; a list is empty if there is nothing to show.

    If the difference of one arm is much larger than the others, `intervals` and `cost` hold a second plot of only the
    others, and `near` holds these arms.
    """

    intervals: list[Both]
    also: dict[str, list[Both]]
    cost: list[Both]
    classes: list[Both]
    confusion: list[Drawing]
    pointing_game: list[Both]
    epoch: list[Both]
    curves: list[Drawing]
    near: list[Mapping[str, Any]]

    def files(self) -> Iterator[Drawing]:
        """The plots that become separate files: the wide form of each."""
        lists = [self.intervals, *self.also.values(), self.cost, self.classes, self.pointing_game, self.epoch]
        yield from (wide for some in lists for wide, _ in some)
        yield from (*self.confusion, *self.curves)


def plots(results: Mapping[str, Any]) -> Plots:
    """Draw all that `results` hold."""
    arms, margin = results["arms"], results.get("margin")
    measure = f"test {results.get('measure') or 'accuracy'}"
    near = axes.near(arms)
    shown = [(arms, ""), *([(near, "-near")] if near else [])]
    once = epochs(arms) == 1
    return Plots(
        intervals=_each(
            partial(forest, arms, measure=measure, margin=margin, shown=some, name=f"intervals{end}")
            for some, end in shown
        ),
        also={
            name: _each([partial(forest, judged, measure=f"test {name}", name=f"also-{k}")])
            for k, (name, judged) in enumerate(results_table.also(results).items(), 1)
        },
        cost=_each(partial(gain_against_cost, arms, shown=some, name=f"cost{end}") for some, end in shown),
        classes=_each(
            [partial(forest, changed(results), measure=str(results.get("class_measure") or "score"), name="classes")]
        ),
        confusion=_confusion(results),
        pointing_game=_each([partial(pointing_game, arms)]),
        epoch=_each(partial(one_epoch, arms, key=key, title=title) for key, title in _once(results)) if once else [],
        curves=[] if once else curves(arms, str(results.get("measure") or "accuracy")),
        near=near,
    )


def compared(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The arm whose confusion matrix is shown next to the plain host's: the best one with attention."""
    slugs = [arm.get("slug") for arm in results["arms"] if arm.get("verdict") != "baseline"]
    chosen = next((slug for slug in results.get("confusion") or {} if slug in slugs), None)
    return next((arm for arm in results["arms"] if arm.get("slug") == chosen), None)


def changed(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes that `compared` changes most, in their own order, as rows of a plot of intervals."""
    arm = compared(results)
    rows = [(one, (one.get("arms") or {}).get(arm and arm["slug"])) for one in results.get("classes") or []]
    known = [
        {"label": one["name"], "difference": difference, "verdict": side(difference)}
        for one, difference in rows
        if difference
    ]
    most = sorted(known, key=lambda row: -abs(row["difference"]["estimate"]))[:MOST_CLASSES]
    return [row for row in known if row in most]


def side(difference: Mapping[str, Any]) -> str:
    """The verdict of an interval without the margin, which is not meant for single classes."""
    return "helps" if difference["low"] > 0 else "hurts" if difference["high"] < 0 else "undecided"


def _each(draws: Iterator[Callable[..., Drawing | None]] | Sequence[Callable[..., Drawing | None]]) -> list[Both]:
    pairs = ((draw(width=axes.WIDE), draw(width=axes.NARROW)) for draw in draws)
    return [(wide, narrow) for wide, narrow in pairs if wide and narrow]


def _once(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    measure = " ".join(str(results.get("measure") or "accuracy").split())[:40]
    return [("val_score", f"Validation {measure} after the epoch, %"), ("train_loss", "Training loss in the epoch")]


def _confusion(results: Mapping[str, Any]) -> list[Drawing]:
    names = [str(name) for name in (results.get("data") or {}).get("classes") or []]
    matrices = results.get("confusion") or {}
    if not 0 < len(names) <= MOST_CLASSES:
        return []
    pairs = [(arm, matrices[arm["slug"]]) for arm in results["arms"] if arm.get("slug") in matrices]
    return [confusion(names, matrix, axes.label(arm), f"confusion-{k}") for k, (arm, matrix) in enumerate(pairs, 1)]
