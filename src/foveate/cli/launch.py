"""`foveate launch -- train ...`: train one model in several processes, on this machine or on several."""

from typing import Annotated

import typer

from foveate.cli import flags
from foveate.errors import UsageError


def launch(
    command: Annotated[list[str], typer.Argument(metavar="-- train ...", help="The command that each process runs.")],
    nodes: flags.Nodes = None,
    devices: flags.Devices = None,
    node_rank: Annotated[
        int, flags.option("--node-rank", help="Which of the nodes this is, from 0.", panel=flags.PROCESSES, min=0)
    ] = 0,
    host: Annotated[
        str | None,
        flags.option("--host", help="An address of node 0 that every node reaches.", panel=flags.PROCESSES),
    ] = None,
    port: Annotated[
        int | None,
        flags.option("--port", help="A free port of node 0 (29500).", panel=flags.PROCESSES, min=1, max=65535),
    ] = None,
    interface: Annotated[
        str | None,
        flags.option(
            "--interface",
            help="This node's network interface, such as eth0 (default: the one that leads to --host).",
            panel=flags.PROCESSES,
        ),
    ] = None,
    timeout: Annotated[
        float,
        flags.option(
            "--timeout", help="Seconds to wait for the other processes, each time (300).", panel=flags.PROCESSES, min=1
        ),
    ] = 300.0,
    debug: flags.Debug = False,
) -> int:
    """Train one model in several processes that exchange their gradients (DDP); start it on every node."""
    from foveate.experiment import launching

    nodes, devices = nodes or 1, devices or 1
    if node_rank >= nodes:
        raise UsageError(
            expected=f"--node-rank from 0 to {nodes - 1} with --nodes {nodes}",
            received=str(node_rank),
            do="number the nodes from 0",
        )
    arguments = launching.with_options(command, nodes, devices)
    meeting = launching.rendezvous(nodes, node_rank, host, port, interface, launching.interfaces())
    return launching.launch(arguments, meeting, nodes, node_rank, devices, timeout)
