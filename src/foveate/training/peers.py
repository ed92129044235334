"""The processes that train one model together (DDP): join them, exchange values, and name one that died.

Each process beats in the store of the rendezvous from a thread of its own. When an exchange fails, a process whose beat
has stopped is the one that died.
"""

import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foveate.errors import FoveateError, UsageError
from foveate.training.device import pick_device
from foveate.training.fit_options import FitOptions

TIMEOUT = "FOVEATE_TIMEOUT"
"""The variable in which `foveate launch` gives its processes the seconds to wait for each other."""

DEFAULT_TIMEOUT = 300.0
_ORPHANED = 1  # exit code of a process whose launcher died


class PeerLost(FoveateError):
    """A process of the same training died, or cannot be reached."""


def launched() -> bool:
    """Return whether torchrun or `foveate launch` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Return whether this is the process that writes: the only one, or rank 0."""
    return not launched() or os.environ.get("RANK") == "0"


def joined_now() -> bool:
    """Return whether this process trains with others at the moment."""
    return dist.is_available() and dist.is_initialized()


def position() -> tuple[int, int]:
    """Return the rank of this process and the number of processes: (0, 1) without others."""
    return (dist.get_rank(), dist.get_world_size()) if joined_now() else (0, 1)


def total(value: Tensor) -> Tensor:
    """Return the sum of a value over the processes, without a gradient."""
    if not joined_now():
        return value
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed


def mean(value: Tensor) -> Tensor:
    """Return the mean of a value over the processes, without a gradient."""
    return total(value) / position()[1]


def from_first(value: Any) -> Any:
    """Return what rank 0 gave, on every process."""
    if not joined_now():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def copy_buffers(model: nn.Module) -> None:
    """Give the model's buffers, as the statistics of norms, the values of rank 0."""
    if joined_now():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


@contextmanager
def joined(options: FitOptions) -> Iterator[None]:
    """Train with the other processes inside the block, if the options say so.

    Raises:
        UsageError: the process was not launched with as many others as the options say.
        PeerLost: one of them died.
    """
    if options.strategy is None:
        yield
        return
    count = options.nodes * options.devices
    if not launched() or int(os.environ["WORLD_SIZE"]) != count:
        started = f"{os.environ['WORLD_SIZE']} processes" if launched() else "a process that was not launched"
        raise UsageError(
            expected=f"{count} processes for --strategy ddp --nodes {options.nodes} --devices {options.devices}",
            received=started,
            do=f"foveate launch --nodes {options.nodes} --devices {options.devices} -- train ... on every node",
        )
    seconds = float(os.environ.get(TIMEOUT, DEFAULT_TIMEOUT))
    backend = "nccl" if pick_device(options.device) == "cuda" else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    peers = None
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
        peers = _Peers(seconds)
        yield
    except RuntimeError as error:  # also the errors of gloo and NCCL
        lost = peers.lost() if peers else "a process that did not join"
        resume = "the same command with --resume continues after the last finished epoch"
        expected, said = f"an answer of all {count} processes within {seconds:g} seconds", " ".join(str(error).split())
        if lost:
            received, do = f"none of {lost}: {said[:200]}", f"look at its own messages; {resume}"
        elif isinstance(error, dist.DistError) or "gloo" in said or "pair closure" in said:
            late = "timed out" in said.lower() or "timeout" in said.lower()
            received = f"{'none in time' if late else 'an error'}, but all of them run: {said[:200]}"
            do = f"{'give a longer --timeout' if late else 'look at the network between the nodes'}; {resume}"
        else:
            raise
        raise PeerLost(expected=expected, received=received, do=do) from error
    else:
        dist.destroy_process_group()
    finally:
        if peers:
            peers.end()


def patience(seconds: float) -> tuple[float, float]:
    """Return the seconds between two beats, and those in which a process that runs beats, for a time-out.

    A failed exchange takes one time-out, and `lost` at most twice the second number: less than two time-outs together.
    """
    return min(1.0, seconds / 40), min(10.0, seconds / 4)


class _Peers:
    """The names of the processes, and their beats in the store of the rendezvous."""

    def __init__(self, seconds: float):
        self.rank, self.count = position()
        self.pause, self.wait = patience(seconds)
        names: list[Any] = [None] * self.count
        dist.all_gather_object(names, f"rank {self.rank} (process {os.getpid()} on {platform.node()})")
        self.names: list[str] = names
        self._ended, self._parent = threading.Event(), os.getppid()
        threading.Thread(target=self._beat, daemon=True).start()

    def end(self) -> None:
        """Stop beating."""
        self._ended.set()

    def lost(self) -> str:
        """Return the names of processes that do not beat, "" for none; it takes seconds to tell."""
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._ask, args=(answers,), daemon=True).start()
        try:
            return answers.get(timeout=2 * self.wait)
        except queue.Empty:  # the store of the rendezvous does not answer over a cut link
            return self._first_machine()

    def _ask(self, answers: "queue.SimpleQueue[str]") -> None:
        try:
            store = self._store()
            before = [store.add(f"beat/{rank}", 0) for rank in range(self.count)]
            time.sleep(self.wait)
            after = [store.add(f"beat/{rank}", 0) for rank in range(self.count)]
        except (RuntimeError, OSError):
            answers.put("" if self.rank == 0 else self._first_machine())
            return
        still = [self.names[rank] for rank in range(self.count) if before[rank] == after[rank] and rank != self.rank]
        answers.put(", ".join(still))

    def _first_machine(self) -> str:
        return f"the machine of {self.names[0]}, at {os.environ['MASTER_ADDR']}"

    def _store(self) -> Any:
        """Connect to the store anew: a connection is blocked while a call over it waits."""
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection(place, self.wait).close()  # TCPStore prints pages where nobody answers
        made: Any = dist
        store = made.TCPStore(*place, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=self.wait))
        return made.PrefixStore("foveate", store)

    def _beat(self) -> None:
        store = None
        while not self._ended.wait(self.pause):
            if os.getppid() != self._parent:  # the launcher was killed, and nothing else would end this process
                os._exit(_ORPHANED)
            try:
                store = store or self._store()
                store.add(f"beat/{self.rank}", 1)
            except (RuntimeError, OSError):
                store = None
