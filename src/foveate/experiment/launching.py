"""Start the processes of one training on this machine, so that they and those of other machines find each other.

torchrun's own agent starts and watches them. What it cannot know is set here: which address and which network
interface of this machine the others reach, since a host name often leads to neither.
"""

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveate.errors import FoveateError, UsageError, nearest
from foveate.experiment.environment import cores
from foveate.new_process import python_command
from foveate.training.peers import TIMEOUT

PORT = 29500  # torchrun's own
LOOPBACK = "127.0.0.1"
_BOOT = "from foveate.cli import main; main()"


class WorkerDied(FoveateError):
    """A process of the training was killed."""


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes meet, and how this machine is reached: `host` is an address of node 0."""

    host: str
    port: int
    address: str
    interface: str

    def environment(self, devices: int, timeout: float) -> dict[str, str]:
        """Return the variables that the processes of this machine need."""
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // devices))
        return {
            "GLOO_SOCKET_IFNAME": self.interface,
            "NCCL_SOCKET_IFNAME": self.interface,
            "OMP_NUM_THREADS": threads,
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # notes on how fast DDP is
            TIMEOUT: str(timeout),
        }


def rendezvous(
    nodes: int,
    node_rank: int,
    host: str | None,
    port: int | None,
    interface: str | None,
    found: Mapping[str, list[str]],
) -> Rendezvous:
    """Return where the processes meet.

    `found` are the IPv4 addresses of this machine's interfaces. Without `interface`, it is the one that leads to the
    host; on node 0, the one that has the host's address.

    Raises UsageError for a host or an interface that cannot be used.
    """
    if nodes == 1:
        host, port = host or LOOPBACK, port or _free_port()
    if host is None:
        raise UsageError(
            expected="--host, the address of node 0, on several nodes",
            received="none",
            do="give an address of node 0 that every node reaches, such as --host 10.0.0.1",
        )
    try:
        address = socket.gethostbyname(host)
    except OSError:
        raise UsageError(
            expected="--host as an address, or a name that this machine can resolve",
            received=repr(host),
            do="give the address in numbers, such as 10.0.0.1",
        ) from None
    own = {one: name for name, several in found.items() for one in several}
    if node_rank == 0 and address not in own:
        raise UsageError(
            expected=f"an address of this machine as --host of node 0: {', '.join(own)}",
            received=host,
            do="correct --host, or --node-rank",
        )
    if interface is not None and not found.get(interface):
        names = [name for name, several in found.items() if several]
        raise UsageError(
            expected="--interface as a network interface of this machine with an IPv4 address",
            received=repr(interface),
            do=nearest(interface, names),
        )
    if interface is None:
        reached = address if node_rank == 0 else _leading_to(address)
        interface = own.get(reached or "")
    if interface is None:
        raise UsageError(
            expected=f"a network interface that leads to {host}",
            received="none",
            do=f"name it with --interface: {', '.join(name for name, several in found.items() if several)}",
        )
    mine = address if node_rank == 0 and address in found[interface] else found[interface][0]
    return Rendezvous(address, port or PORT, mine, interface)


def interfaces() -> dict[str, list[str]]:
    """Return the IPv4 addresses of each network interface of this machine."""
    import psutil

    return {
        name: [one.address for one in several if one.family == socket.AF_INET]
        for name, several in psutil.net_if_addrs().items()
    }


def with_options(arguments: Sequence[str], nodes: int, devices: int) -> list[str]:
    """Return the arguments of `foveate train` for each process. Raises UsageError for another command."""
    if not arguments or arguments[0] != "train":
        raise UsageError(
            expected="foveate launch ... -- train ...",
            received=" ".join(arguments[:1]) or "no command",
            do="write the options of launch first, then --, then train with its own options",
        )
    return [*arguments, "--strategy", "ddp", "--nodes", str(nodes), "--devices", str(devices)]


def launch(arguments: Sequence[str], meeting: Rendezvous, nodes: int, node_rank: int, devices: int, wait: float) -> int:
    """Run `foveate` with these arguments in `devices` processes of this machine, and return the exit code.

    Raises WorkerDied if one was killed, UsageError if the other nodes did not come in time.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.update(meeting.environment(devices, wait))
    python, *started = python_command(_BOOT, *arguments)
    config: Any = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id="foveate",
        rdzv_backend="static",
        rdzv_endpoint=f"{meeting.host}:{meeting.port}",
        rdzv_configs={"rank": node_rank, "timeout": int(wait)},
        max_restarts=0,
        local_addr=meeting.address,
        shutdown_timeout=5,
    )
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}  # torchrun has its own
    try:
        elastic_launch(config, python)(*started)
    except SignalException as stop:
        for number, answer in answers.items():
            signal.signal(number, answer)
        if stop.sigval in answers:
            signal.raise_signal(stop.sigval)
        raise KeyboardInterrupt from stop
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # its own message is on stderr
            return failure.exitcode
        raise WorkerDied(
            expected=f"{nodes * devices} processes that train to the end",
            received=f"rank {rank} (process {failure.pid} on {meeting.address}), killed by signal {-failure.exitcode}",
            do="the same command with --resume continues after the last finished epoch",
        ) from None
    except DistError as error:
        raise UsageError(
            expected=f"{nodes} nodes at {meeting.host}:{meeting.port} within {wait:g} seconds",
            received=" ".join(str(error).split())[:300],
            do="start foveate launch on every node, with the same --host and --port and its own --node-rank",
        ) from None
    return 0


def _leading_to(address: str) -> str | None:
    """Return this machine's own address on the way to another; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 1))
        except OSError:
            return None
        return probe.getsockname()[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]
