"""`foveate plan MODEL`: where attention would go, and what it would cost, without training and without data."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags
from foveate.errors import BatchOfOneWarning, counted

if TYPE_CHECKING:
    from torch import nn

    from foveate.experiment.options import Resolved

Channels = Annotated[int, typer.Option("--channels", help="Channels of the input.")]
Classes = Annotated[int | None, flags.option("--classes", help="Classes of the output (1000; detect 80).")]


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=flags.MODELS, show_default=False)],
    attention: flags.Attentions = "cbam",
    where: flags.Wheres = None,
    replace: flags.Replace = None,
    start: flags.Starts = "identity",
    imgsz: flags.Imgsz = None,
    channels: Channels = 3,
    classes: Classes = None,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Show where attention would go in a model, and what it would cost; needs no data."""
    plans = make_plans(model, attention, where, replace, start, imgsz=imgsz, channels=channels, classes=classes)
    if json:
        console.say_json({"schema": 1, "model": model, "plans": [made.to_dict() for made in plans]})
        return
    for made in plans:
        show(made)


def make_plans(
    model: str,
    attention: str | None,
    where: str | None,
    replace: str | None,
    start: str | None,
    *,
    imgsz: int | None,
    channels: int,
    classes: int | None,
) -> list[Any]:
    """Return a `Plan` for each mechanism, site and start.

    Raises UsageError.
    """
    from foveate.experiment.arms import choose_arms
    from foveate.surgery import plan

    given = {"attention": attention, "where": where, "replace": replace, "start": start}
    asked, host, example = open_host(model, given, imgsz=imgsz, channels=channels, classes=classes)
    arms = [arm for arm in choose_arms(asked) if arm.is_attention]
    with warnings.catch_warnings(action="ignore", category=BatchOfOneWarning):  # the note of the plan is shown
        return [plan(host, arm.mechanism, example=example, **arm.arguments) for arm in arms]


def open_host(
    model: str, given: Mapping[str, Any], *, imgsz: int | None, channels: int, classes: int | None
) -> "tuple[Resolved, nn.Module, tuple[int, ...] | None]":
    """Return the resolved options, the model, and the shape of its example, None where the model needs none.

    Raises UsageError.
    """
    from foveate.training.tasks import task_of

    asked = flags.study_options({**given, "task": task_of(model), "channels": channels}, control=False).resolve()
    host, imgsz = asked.what.sample(model, classes, channels, imgsz)
    return asked, host, (1, channels, imgsz, imgsz) if imgsz else None


def show(made: Any) -> None:
    """Print a plan as a table, with the host's parameters before and after."""
    from foveate.report import format as fmt

    def numbers(cost: Any) -> list[str]:
        return [f"{cost.parameters:,}", fmt.count(cost.macs), fmt.count(cost.elementwise), fmt.size(cost.bytes)]

    settings = ", ".join(f"{name}={value!r}" for name, value in made.options.items())
    console.say(f"{made.mechanism} {made.place}, {made.start} start", "bold")
    console.say_prose(settings, "dim")
    rows = [[site.name, "×".join(map(str, site.shape[1:])), *numbers(site.cost)] for site in made.sites]
    totals = [[counted(len(rows), "site"), "", *numbers(made.cost)]]
    if made.replaced:
        totals.append([f"{' and '.join(made.replaced)} removed", "", *numbers(made.removed)])
    console.say_table(("Site", "C×H×W", "Parameters", "MACs", "Element-wise", "Bytes moved"), [*rows, *totals])
    after = made.host_parameters + made.change
    share = made.change / max(made.host_parameters, 1)
    console.say_prose(
        f"Parameters: host {made.host_parameters:,}, with attention {after:,} ({share:+.2%}). Costs are per image."
    )
    if made.note:
        console.say_prose(f"Note: {made.note}.")
    console.say()
