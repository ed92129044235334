"""Two machines on one: network namespaces joined by a cable that can be cut. It needs root and Linux's `ip`."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_DEAF = "02:00:00:00:00:99"  # a hardware address that nobody has


class Machines:
    """Two namespaces with the addresses 10.213.0.1 and 10.213.0.2; what runs in one cannot reach the other's 127.0.0.1.

    Both see the files of this machine.
    """

    addresses = ("10.213.0.1", "10.213.0.2")

    def __init__(self) -> None:
        self.names = tuple(f"foveate-{os.getpid()}-{which}" for which in "ab")
        self.started: list[subprocess.Popen[str]] = []
        self.cables = tuple(f"fv{os.getpid() % 10**8}{which}" for which in "ab")

    def start(self, which: int, *command: Any, **options: Any) -> "subprocess.Popen[str]":
        """Start a program on one of the two."""
        words = ["ip", "netns", "exec", self.names[which], *map(str, command)]
        self.started.append(subprocess.Popen(words, text=True, **options))
        return self.started[-1]

    def cut(self) -> None:
        """Lose every packet between the two, as a broken cable does: both ends still look connected."""
        for which in (0, 1):
            self._neighbour("replace", which, "lladdr", _DEAF, "nud", "permanent")

    def join(self) -> None:
        """Mend the cable."""
        for which in (0, 1):
            self._neighbour("del", which)

    def processes(self, which: int) -> list[int]:
        """Return the ids of the processes on one of the two."""
        found = subprocess.run(["ip", "netns", "pids", self.names[which]], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def switch_off(self, which: int) -> None:
        """End everything on one of the two, as `kill -9` does."""
        for pid in self.processes(which):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _neighbour(self, act: str, which: int, *details: str) -> None:
        other = self.addresses[1 - which]
        _ip("-n", self.names[which], "neigh", act, other, *details, "dev", self.cables[which])


@contextmanager
def two_machines() -> Iterator[Machines]:
    """Make the two namespaces, and remove them afterwards with all that runs in them.

    Raises OSError, with the reason, where this machine does not allow it.
    """
    if os.name != "posix" or os.geteuid() or not shutil.which("ip"):
        raise PermissionError("needs root and the program ip, for network namespaces")
    made = Machines()
    try:
        for name in made.names:
            _ip("netns", "add", name)
        _ip("link", "add", made.cables[0], "type", "veth", "peer", "name", made.cables[1])
        for name, cable, address in zip(made.names, made.cables, made.addresses, strict=True):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", cable, "up")
        yield made
    finally:
        for which, name in enumerate(made.names):
            made.switch_off(which)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        for process in made.started:
            process.wait()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"needs network namespaces: ip {' '.join(words)}: {done.stderr.strip()}")
