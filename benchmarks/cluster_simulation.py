"""A simulated cluster: machines that differ, fail and share one driver, event by event; apart from the planner."""

import heapq
import random
from collections import deque
from dataclasses import dataclass

from foveate.studies.planner import Probe, Workload


@dataclass(frozen=True)
class Differences:
    """How the machines of a cluster differ from those of a planner, which all take their mean time and never fail."""

    machine: float = 0.05  # standard deviation of the logarithm of a machine's speed
    slow: float = 0.02  # the share of machines that run at half speed
    trial: float = 0.05  # standard deviation of the logarithm of a trial's time
    days: float = 365.0  # the mean time until a machine fails for good
    noticed: float = 30.0  # seconds until the driver knows that a machine failed


NONE = Differences(0.0, 0.0, 0.0, float("inf"), 0.0)


def simulate(work: Workload, probe: Probe, machines: int, differences: Differences, seed: int) -> float:
    """Return the seconds of one study on a simulated cluster of so many machines.

    A failed machine does not come back, and its trials begin again elsewhere. If all failed, the time is infinite.
    """
    chance = random.Random(seed)
    ready = _ready(work, probe, machines, chance, differences is NONE)
    speeds = [_speed(probe, differences, chance) for _ in range(machines)]
    ends = [86400 * differences.days * chance.expovariate(1) for _ in range(machines)]
    free = [(ready[machine], machine) for machine in range(machines) for _ in range(probe.slots)]
    heapq.heapify(free)
    now = 0.0
    for trials in work.rounds:
        arrivals: list[tuple[float, bool]] = []  # of events at the driver, and whether the result comes with it
        waiting = deque((seconds, now) for seconds in trials)
        while waiting:
            if not free:
                return float("inf")
            at, machine = heapq.heappop(free)
            seconds, earliest = waiting.popleft()
            begin = max(at, earliest)
            taken = seconds / speeds[machine] * chance.lognormvariate(0, differences.trial)
            if begin + taken > ends[machine]:
                waiting.append((seconds, max(begin, ends[machine]) + differences.noticed))
                continue
            heapq.heappush(free, (begin + taken, machine))
            arrivals += [(begin + taken * (i + 1) / work.events, i + 1 == work.events) for i in range(work.events)]
        now = _handled(sorted(arrivals), work, probe, now)
    return now + work.after


def _ready(work: Workload, probe: Probe, machines: int, chance: random.Random, exact: bool) -> list[float]:
    """Return when each machine has the data: whoever has them sends them to one other at a time."""
    ready, sources = [], [probe.start_up]
    for _ in range(machines):
        slower = 1.0 if exact else chance.uniform(1.0, 1.5)
        took = slower * work.shipped / probe.bandwidth
        at = heapq.heappop(sources) + took
        for _ in range(2):
            heapq.heappush(sources, at)
        ready.append(at)
    return ready


def _speed(probe: Probe, differences: Differences, chance: random.Random) -> float:
    half = 0.5 if chance.random() < differences.slow else 1.0
    return probe.speed * half * chance.lognormvariate(0, differences.machine)


def _handled(arrivals: list[tuple[float, bool]], work: Workload, probe: Probe, now: float) -> float:
    """Return when the driver has handled all events, one after another as they arrive."""
    for at, result in arrivals:
        now = max(now, at) + probe.event + result * work.returned / probe.bandwidth
    return now
