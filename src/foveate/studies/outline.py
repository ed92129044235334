"""What a study will do, and how long it will take: printed first, and cut to fit a budget."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from foveate.data import AnyData
from foveate.errors import UsageError, counted
from foveate.experiment.arms import Arm, Widths, choose_arms, control_widths, labels
from foveate.experiment.data import describe
from foveate.experiment.environment import cores
from foveate.experiment.first_weights import bring_attention
from foveate.experiment.model import attach_arm, build_host, example_of, freeze
from foveate.experiment.options import Resolved
from foveate.studies import ray_engine
from foveate.studies.planner import Forecast, Probe, Workload, predict, useful
from foveate.training import pick_device
from foveate.training.batch_size import check_batch_size
from foveate.training.batches import plain_loader
from foveate.training.device import gpus_of
from foveate.user_code import is_own, short_name

_START_UP = 8.0  # seconds until a process runs its first trial
_PER_TRIAL = 1.0  # seconds a trial takes apart from its images
_AT_THE_END = 25.0  # seconds for latencies, statistics and the report
_BACKWARD = 3  # a training step takes about this many times a forward pass


@dataclass(frozen=True)
class Outline:
    """A study before it runs: its options, arms and plans, the expected time, the cuts, and what is finished.

    `forecasts` are its times on clusters, where a cluster was probed.
    """

    options: Resolved
    arms: list[Arm]
    plans: dict[str, Any]
    widths: dict[str, Widths]
    host_parameters: int
    counts: dict[str, int]
    steps: dict[str, float]
    jobs: int
    threads: int
    cuts: tuple[str, ...] = ()
    finished: int = 0
    forecasts: tuple[Forecast, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """The seeds, from 0; for a range, as many as its maximum."""
        return list(range(self.options.seed_range[1]))

    @property
    def trials(self) -> int:
        """The largest number of trials, finished ones included."""
        return len(self.arms) * len(self.seeds)

    @property
    def seconds(self) -> float:
        """The longest remaining time in seconds, estimated."""
        return self._seconds(self.options.seed_range[1])

    def within(self, budget: float | None) -> "Outline":
        """Return the study cut to `budget` seconds: epochs down to half, then seeds down to 3, then epochs down to 1.

        A range of seeds fits if its maximum fits, and its maximum is cut down to its minimum.

        Raises:
            UsageError: even the fewest seeds with one epoch take longer.
        """
        if budget is None or self.seconds <= budget:
            return self
        epochs, (least, seeds) = self.options.epochs, self.options.seed_range
        halves = range(epochs, max(1, epochs // 2) - 1, -1)
        fewest = least if least < seeds else min(3, seeds)
        order = [(e, seeds) for e in halves]
        order += [(halves[-1], s) for s in range(seeds - 1, fewest - 1, -1)]
        order += [(e, fewest) for e in range(halves[-1] - 1, 0, -1)]
        shorter = self
        for fewer_epochs, fewer_seeds in order:
            options = dataclasses.replace(
                self.options, epochs=fewer_epochs, seeds=f"{min(least, fewer_seeds)}..{fewer_seeds}"
            )
            cuts = [f"epochs {epochs} -> {fewer_epochs}"] * (fewer_epochs < epochs)
            cuts += [f"seeds {self.options.seeds} -> {options.seeds}"] * (fewer_seeds < seeds)
            shorter = dataclasses.replace(self, options=options, cuts=tuple(cuts))
            if shorter.seconds <= budget:
                return shorter
        raise UsageError(
            expected=f"a budget of at least {shorter.seconds:.0f} s: {counted(fewest, 'seed')} of 1 epoch "
            f"in each of {counted(len(self.arms), 'arm')}",
            received=f"{budget:.0f} s",
            do="raise --budget, or ask for fewer arms or a smaller --imgsz",
        )

    def on_machines(self, probe: Probe, shipped: int) -> "Outline":
        """Return the study with its times on clusters like the probed one; `shipped` bytes go to each node."""
        seconds, (least, most) = [self._trial_seconds(arm.slug) for arm in self.arms], self.options.seed_range
        looks = [seconds * count for count in (least, *[1] * (most - least))]
        rounds, done = [], self.finished
        for one in looks:
            rounds.append(tuple(one[done:]))
            done = max(0, done - len(one))
        returned = 4.0 * self.host_parameters
        work = Workload(tuple(filter(None, rounds)), shipped, returned, self.options.epochs + 2, _AT_THE_END)
        forecasts = predict(work, probe, useful(work, probe))
        return dataclasses.replace(self, forecasts=tuple(forecasts))

    def to_dict(self) -> dict[str, Any]:
        """Return the outline, ready for JSON."""
        names = labels(self.arms)
        return {
            "arms": [
                {
                    **arm.to_dict(),
                    "slug": arm.slug,
                    "label": names[arm.slug],
                    "plan": self._plan(arm.slug),
                    "sites": self._sites(arm.slug),
                }
                for arm in self.arms
            ],
            "seeds": self.seeds,
            "least_seeds": self.options.seed_range[0],
            "epochs": self.options.epochs,
            "trials": self.trials,
            "jobs": self.jobs,
            "threads": self.threads,
            "widths": {where: list(widths.items()) for where, widths in self.widths.items()},
            "host_parameters": self.host_parameters,
            "least_seconds": round(self._seconds(self.options.seed_range[0])),
            "seconds": round(self.seconds),
            "cuts": list(self.cuts),
            **({"forecasts": [vars(forecast) for forecast in self.forecasts]} if self.forecasts else {}),
        }

    def __str__(self) -> str:
        values, names = self.to_dict(), labels(self.arms)
        width = max(map(len, names.values()))
        rows = [
            f"  {names[arm.slug]:<{width}}  {counted(self._sites(arm.slug), 'site'):>9}  "
            f"{self._added(arm.slug):>+9,} parameters"
            for arm in self.arms
        ]
        least = self.options.seed_range[0]
        trials, time = f"{self.trials}", clock(self.seconds)
        if least < len(self.seeds):
            trials, time = f"{len(self.arms) * least} to {trials}", f"{clock(self._seconds(least))} to {time}"
        times = " = ".join(
            (f"{counted(len(self.arms), 'arm')} x {counted(self.options.seeds, 'seed')}", counted(trials, "trial"))
        )
        times += f" of {counted(values['epochs'], 'epoch')}"
        name = short_name(self.options.model)
        done = f", {self.finished} of them finished" if self.finished else ""
        return "\n".join(
            [
                f"{name} ({self.host_parameters:,} parameters), {self.counts['train']:,} training images",
                *rows,
                f"{times}{done}, {self.jobs} at once on {self.options.device}; about {time}",
                *(f"cut to fit the budget: {cut}" for cut in self.cuts),
                *self._times_on_clusters(),
            ]
        )

    def _times_on_clusters(self) -> Iterator[str]:
        if self.forecasts:
            yield "On machines like those of the cluster, by a short probe (most of the time goes to what is named):"
        for one in self.forecasts:
            faster = f"{one.times_faster:.1f} times as fast" if one.machines > 1 else ""
            machines = counted(one.machines, "machine")
            yield f"  {machines:<13} {clock(one.seconds):>12}  {faster:<19}  {one.bound}"

    def _seconds(self, seeds: int) -> float:
        """Return the remaining time for so many seeds.

        After the first look, each further seed waits for the last trial. The local engine starts its processes again.
        """
        left = max(0, len(self.arms) * seeds - self.finished)
        if not left:
            return _AT_THE_END
        mean = sum(self._trial_seconds(arm.slug) for arm in self.arms) / len(self.arms)
        looks = seeds - max(self.options.seed_range[0], self.finished // len(self.arms)) + 1
        starts = 1 if self.options.engine == "ray" else looks
        return starts * _START_UP + left * mean / min(self.jobs, len(self.arms) if looks > 1 else left) + _AT_THE_END

    def _trial_seconds(self, slug: str) -> float:
        options, batch = self.options, self.options.batch
        train = max(1, self.counts["train"] // batch) * options.fraction
        val, test = self.counts["val"] / batch, self.counts["test"] / batch
        return _PER_TRIAL + self.steps[slug] * ((train + val / _BACKWARD) * options.epochs + test / _BACKWARD)

    def _plan(self, slug: str) -> dict[str, Any] | None:
        return self.plans[slug].to_dict() if self.plans[slug] is not None else None

    def _sites(self, slug: str) -> int:
        return len(self.plans[slug].sites) if self.plans[slug] is not None else 0

    def _added(self, slug: str) -> int:
        return self.plans[slug].change if self.plans[slug] is not None else 0


def outline(options: Resolved, data: AnyData) -> Outline:
    """Plan the study: check every arm on the real model, and time one training step of each; nothing is written.

    Raises:
        UsageError: a model, mechanism, site or option that cannot work.
    """
    arms = choose_arms(options)
    if bring_attention(options):
        raise UsageError(
            expected="weights of a host without attention, from which every arm starts",
            received=f"{options.weights}, of a model with attention",
            do="give weights of a run with --attention none",
        )
    pick_device(options.device)
    fit_options, what = options.fit(seed=0, threads=1), options.what
    jobs = _jobs(options)
    threads = options.cpus_per_trial if options.engine == "ray" else max(1, cores() // jobs)
    described = describe(options, data)
    host, example = build_host(options, described, seed=0), example_of(described)
    widths = control_widths(host, arms, example)
    first = next(iter(plain_loader(data.train, fit_options.batch, collate=what.collate_for(host, fit_options))))
    batch = tree_map(lambda tensor: tensor.to(options.device), first)
    plans: dict[str, Any] = {}
    steps: dict[str, float] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for arm in arms:
            model = build_host(options, described, seed=0)
            if is_own(options.model):
                _require_repeatable(host, model, options.model)
            plans[arm.slug] = attach_arm(model, arm, 0, example, widths)
            if options.freeze:
                freeze(model, options, len(described["classes"]))
            check_batch_size(model, data.train, fit_options, options.task)
            steps[arm.slug] = _step_seconds(
                model, lambda model=model: what.loss(model, batch, fit_options), options.device
            )
    finally:
        torch.set_num_threads(before)
    counts = {name: len(getattr(data, name)) for name in ("train", "val", "test")}
    parameters = sum(p.numel() for p in host.parameters())
    return Outline(options, arms, plans, widths, parameters, counts, steps, jobs, threads).within(options.budget)


def models_of(
    options: Resolved, arms: Sequence[Arm], data: AnyData, widths: Mapping[str, Widths]
) -> dict[str, nn.Module]:
    """Return an untrained model of every arm, to measure what it costs."""
    models, described = {}, describe(options, data)
    for arm in arms:
        models[arm.slug] = build_host(options, described, seed=0)
        attach_arm(models[arm.slug], arm, 0, example_of(described), widths)
    return models


def clock(seconds: float) -> str:
    """Return a time for people: 40 s, 5 min, 2 h 10 min, 3 days 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes >= 48 * 60:
        return f"{minutes // 1440} days {minutes % 1440 // 60} h"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _require_repeatable(model: nn.Module, again: nn.Module, name: str) -> None:
    """Raise UsageError if the user's function gives other weights for the same seed, as all arms need the same host."""
    one, other = model.state_dict(), again.state_dict()
    if one.keys() != other.keys() or any(not torch.equal(one[key], other[key]) for key in one):
        raise UsageError(
            expected=f"the same network from {short_name(name)} for the same seed",
            received="a different one at the second call",
            do="initialise its weights only with random numbers of torch, and keep no state between calls",
        )


def _jobs(options: Resolved) -> int:
    """Return how many trials run at the same time: by default one per core, or one per GPU."""
    if options.engine == "ray":
        return sum(ray_engine.slots(options))
    return options.jobs or (cores() if options.device == "cpu" else len(gpus_of(options.device)) or 1)


def _step_seconds(model: nn.Module, loss: Callable[[], Tensor], device: str) -> float:
    """Return the time of the faster of two training steps after a first one; the model must not be used afterwards."""
    model = model.train().to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        loss().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])
