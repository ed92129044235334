"""How long a study takes on a number of machines, predicted from a short probe; see docs/design/engines.md."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN_BANDWIDTH = 125e6
"""Bytes a second between two machines, assumed where the cluster has only one: 1 Gbit/s."""

LARGEST = 1024
"""The most machines for which a time is predicted."""


@dataclass(frozen=True)
class Workload:
    """What a study asks of a cluster.

    `rounds` has the seconds of each trial in the order of their start; a round begins when the one before has ended.
    `shipped` is sent to every node once, `returned` comes back from every trial (bytes). A trial sends `events`. The
    driver's machine alone works for `after` seconds when all trials have ended.
    """

    rounds: tuple[tuple[float, ...], ...]
    shipped: float
    returned: float
    events: int
    after: float = 0.0

    @property
    def trials(self) -> int:
        """The number of trials."""
        return sum(map(len, self.rounds))


@dataclass(frozen=True)
class Probe:
    """What was measured on a cluster.

    A node needs `start_up` seconds until it can train, and the driver `event` seconds for an event. `bandwidth` is in
    bytes a second. A machine runs `slots` trials at once, and trains `speed` times as fast as the driver's machine.
    """

    start_up: float
    event: float
    bandwidth: float
    slots: int
    speed: float


@dataclass(frozen=True)
class Forecast:
    """The predicted time of a study on a number of machines, how many times as fast as one, and what bounds it."""

    machines: int
    seconds: float
    times_faster: float
    bound: str


def predict(work: Workload, probe: Probe, machines: Sequence[int]) -> list[Forecast]:
    """Return the predicted time on each number of machines that are all as the probe found them.

    Each trial takes exactly its expected time, and no machine fails.
    """
    one = sum(_parts(work, probe, 1).values())
    forecasts = []
    for count in machines:
        parts = _parts(work, probe, count)
        seconds = sum(parts.values())
        bound = max(parts, key=lambda name: parts[name])
        forecasts.append(Forecast(count, seconds, one / seconds if seconds else 1.0, bound))
    return forecasts


def useful(work: Workload, probe: Probe) -> list[int]:
    """Return 1, 2, 4 ... machines, until twice as many would no longer make the study 5 % faster."""
    counts = [1]
    while counts[-1] < LARGEST:
        now, more = predict(work, probe, (counts[-1], 2 * counts[-1]))
        if more.seconds > 0.95 * now.seconds:
            break
        counts.append(2 * counts[-1])
    return counts


def ends(seconds: Sequence[float], slots: int) -> list[float]:
    """Return when each trial ends, sorted, if they begin in this order, each as soon as a slot is free."""
    free, found = [0.0] * min(slots, len(seconds)), []
    for one in seconds:
        found.append(heapq.heappop(free) + one)
        heapq.heappush(free, found[-1])
    return sorted(found)


def _parts(work: Workload, probe: Probe, machines: int) -> dict[str, float]:
    """Return the seconds of each part of a study; their sum is its time."""
    slots = machines * probe.slots
    training = waiting = receiving = 0.0
    for trials in work.rounds:
        ended = ends([seconds / probe.speed for seconds in trials], slots)
        busy, received = sum(trials) / probe.speed / slots, 0.0
        for end in ended:  # one result after another
            received = max(received, end) + work.events * probe.event + work.returned / probe.bandwidth
        training, waiting, receiving = training + busy, waiting + ended[-1] - busy, receiving + received - ended[-1]
    # A node that has the data sends them on, so that the number of those that have them doubles.
    used = min(machines, math.ceil(max(map(len, work.rounds), default=0) / probe.slots))
    shipping = math.ceil(math.log2(used + 1)) * work.shipped / probe.bandwidth
    return {
        "training": training,
        "idle cores, while the last trials end": waiting,
        "the driver, which receives the results": receiving,
        "shipping the data": shipping,
        "the start of the nodes": probe.start_up,
        "latencies and the report": work.after,
    }
