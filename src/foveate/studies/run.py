"""The study from beginning to end: outline, trials, costs, verdict, report."""

import dataclasses
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

import foveate
from foveate import files
from foveate.data import AnyData
from foveate.errors import DataError, UsageError
from foveate.experiment.arms import Arm, choose_arms
from foveate.experiment.data import content_digest, data_record, open_study_data
from foveate.experiment.environment import describe_environment
from foveate.experiment.first_weights import code_digests
from foveate.experiment.options import Resolved, StudyOptions, located
from foveate.experiment.progress import Progress
from foveate.experiment.waiting import say_waiting
from foveate.files import read_json
from foveate.studies import ray_engine, shared_results
from foveate.studies.card import model_card
from foveate.studies.cluster_probe import bytes_to_ship, probe
from foveate.studies.costs import measure_costs
from foveate.studies.design import Design
from foveate.studies.engine import Engine, Event, LocalEngine
from foveate.studies.outline import Outline, models_of, outline
from foveate.studies.results import gather, judge
from foveate.studies.shared_results import SharedResults
from foveate.studies.study_folder import StudyFolder, require_same
from foveate.studies.trial import Trial
from foveate.training.device import gpus_of
from foveate.user_code import name_of, require_not_importing, short_name

__all__ = ["Progress", "exit_code", "run_study"]


def run_study(
    options: StudyOptions,
    *,
    model: Callable[..., nn.Module] | None = None,
    progress: Progress | None = None,
    report: Callable[[Path], object] | None = None,
    engine: Engine | None = None,
    command: str | None = None,
) -> Path | None:
    """Run a study, or finish one with `resume`, and return its folder; None for a dry run, which writes nothing.

    `model` is a function that `--model FILE.py:FUNCTION` can name (see `foveate.models.own.build_own`); the processes
    of the trials import it from its file. `report` is called with the folder after results.json is written. An
    interruption keeps every finished trial.

    Raises:
        UsageError: an option, model, site or mechanism that cannot work, other arguments than a resumed study's, or a
            study that another process is working on.
        DataError: data that cannot be used.
    """
    require_not_importing("run_study")
    if model is not None:
        options = dataclasses.replace(options, model=name_of(model))
        command = command or shlex.join(["python", *sys.argv])
    progress = progress or Progress()
    command = command or shlex.join(["foveate", *sys.argv[1:]])
    resolved = options.resolve()
    _check(resolved)
    data = open_study_data(resolved)
    name, content, asked = _default_name(resolved, data), content_digest(data, resolved), resolved.asked()
    with ExitStack() as locks:
        if resolved.engine == "ray":
            locks.enter_context(ray_engine.connected(resolved.address))
        if resolved.resume:
            record = _begun(resolved, name, content, asked)
            if not resolved.dry_run:
                locks.enter_context(files.locked(record.folder))
            require_same(record.study(), content, asked)
            plan = outline(_as_begun(resolved, record), data)
            shared = None if resolved.dry_run else _share(resolved, record, plan)
            plan = _as_left(plan, record)
        else:
            record, shared, plan = None, None, outline(resolved, data)
        if resolved.dry_run and resolved.engine == "ray":
            plan = plan.on_machines(probe(resolved), bytes_to_ship(resolved))
        progress.outlined(plan)
        if resolved.dry_run:
            return None
        if record is None:
            if resolved.results:
                shared_results.require_empty(resolved.results)
            record = StudyFolder.create(resolved, name)
            locks.enter_context(files.locked(record.folder))
            study = {
                "id": secrets.token_hex(8),
                "foveate": foveate.__version__,
                "data": content,
                "asked": asked,
                "command": command,
                "outline": plan.to_dict(),
            }
            record.begin(study, located(plan.options.to_dict()), describe_environment(), data_record(resolved, data))
            shared = _share(resolved, record, plan)
        else:
            record.log("resumed")
        seeds = _run_seeds(record, plan, progress, engine or _engine(plan, content, shared))
        results = _conclude(record, plan, seeds, data, progress)
        if report:
            report(record.folder)
        record.log("finished")
        trials = record.trials(plan.arms, seeds)
        say_waiting(
            [row for found in trials.values() for one in found.values() for row in one["history"]], resolved, data
        )
    progress.finished(record.folder, results)
    return record.folder


def _begun(options: Resolved, name: str, content: str, asked: dict[str, Any]) -> StudyFolder:
    """Return the study to resume, from the shared results where this machine does not have it."""
    if options.results and not options.dry_run:
        parent = options.project / "study"
        if folder := shared_results.local_folder(options.results, parent, options.name or name):
            return StudyFolder(folder)
    return StudyFolder.find(options, name, content, asked)


def _share(options: Resolved, record: StudyFolder, plan: Outline) -> SharedResults | None:
    if not options.results:
        return None
    names = [record.trial_folder(arm.slug, seed).name for arm in plan.arms for seed in plan.seeds]
    return shared_results.share(options.results, record.folder, names)


def _engine(plan: Outline, content: str, shared: SharedResults | None) -> Engine:
    if plan.options.engine == "ray":
        return ray_engine.RayEngine(plan.options, content, shared)
    return LocalEngine(plan.jobs, gpus_of(plan.options.device))


def _check(options: Resolved) -> None:
    """Raise UsageError for an unknown mechanism or a wrong option of the training, before the data are opened."""
    if options.strategy is not None:
        raise UsageError(
            expected="strategy='ddp' with foveate train",
            received="a study, whose trials run beside each other on several devices",
            do="leave it out: --jobs and --engine ray use the devices without an exchange between them",
        )
    choose_arms(options)
    options.fit(seed=0, threads=1)


def exit_code(folder: Path) -> int:
    """Return 0, or 4 if a trial of the finished study in `folder` failed or diverged."""
    return 4 if read_json(folder / "results.json")["failures"] else 0


def _as_begun(options: Resolved, record: StudyFolder) -> Resolved:
    """Return the options with the epochs and seeds that the study began with, so that a budget is not applied again.

    On a cluster, a trial takes as many cores as the trials before it had threads.
    """
    begun = record.study()["outline"]
    cpus = begun["threads"] if options.engine == "ray" else options.cpus_per_trial
    seeds = f"{begun['least_seeds']}..{len(begun['seeds'])}"
    return dataclasses.replace(options, epochs=begun["epochs"], seeds=seeds, budget=None, cpus_per_trial=cpus)


def _as_left(plan: Outline, record: StudyFolder) -> Outline:
    """Return the plan with the number of finished trials, and with the threads that they ran on."""
    finished = plan.trials - len(record.missing(plan.arms, plan.seeds))
    return dataclasses.replace(plan, threads=record.study()["outline"]["threads"], finished=finished)


def _run_seeds(record: StudyFolder, plan: Outline, progress: Progress, engine: Engine) -> list[int]:
    """Run the seeds of the study and return those that ran.

    The minimum runs first, then one seed at a time until every arm is decided or the baseline has no score.
    """
    record.sweep()
    progress.started(record.folder, plan.trials, plan.trials - len(record.missing(plan.arms, plan.seeds)))
    (least, most), begun = plan.options.seed_range, record.begun(plan.arms, plan.seeds)
    ran = 0
    for count in range(max(least, len(begun)), most + 1):
        seeds = plan.seeds[:count]
        _run_trials(record, plan, seeds, record.missing(plan.arms, seeds[ran:]), progress, engine)
        ran = count  # --resume repeats the trials that crashed since; a look does not
        if least == most:
            break
        comparison = judge(record.trials(plan.arms, seeds), plan.options.margin, Design(least, most, count))
        record.log("looked", seeds=count, undecided=comparison.undecided)
        if comparison[comparison.baseline].verdict == "not run":
            record.stop(count, comparison.why)
            return seeds
        if count == most or not comparison.undecided:
            record.stop(
                count, "the maximum number of seeds has run" if comparison.undecided else "every arm is decided"
            )
            return seeds
    return plan.seeds


def _run_trials(
    record: StudyFolder,
    plan: Outline,
    seeds: list[int],
    missing: list[tuple[Arm, int]],
    progress: Progress,
    engine: Engine,
) -> None:
    for arm, seed in missing:
        shutil.rmtree(record.trial_folder(arm.slug, seed), ignore_errors=True)
    tasks = [
        Trial(
            record.trial_folder(arm.slug, seed),
            plan.options,
            arm,
            seed,
            plan.widths,
            plan.threads,
            keeps_maps=seed == plan.seeds[0],
        )
        for arm, seed in missing
    ]
    epochs = plan.options.epochs

    def report_event(event: Event) -> None:
        slug, seed = event.trial.arm.slug, event.trial.seed
        if event.kind == "epoch" and event.row is not None:
            progress.epoch_done(slug, seed, event.row, epochs)
        elif event.kind == "started":
            record.log("trial started", arm=slug, seed=seed)
            progress.trial_started(slug, seed)
        else:
            trial = read_json(event.trial.folder / "trial.json")
            record.log(
                "trial done",
                arm=slug,
                seed=seed,
                status=trial["status"],
                error=trial["error"],
                test_score=trial["test_score"],
            )
            progress.trial_done(slug, seed, trial["status"], trial)
            if trial.get("data_error"):  # every other trial would fail too
                raise DataError(**trial["data_error"])

    try:
        engine.run(tasks, report_event)
    except BaseException as error:
        record.log("stopped", why=type(error).__name__)
        raise
    finally:
        record.write_tables(record.trials(plan.arms, seeds), seeds)


def _conclude(
    record: StudyFolder, plan: Outline, seeds: list[int], data: AnyData, progress: Progress
) -> dict[str, Any]:
    before = read_json(record.folder / "data.json")
    if changed := [name for name, digest in code_digests(plan.options).items() if digest != before.get(name)]:
        raise UsageError(
            expected=f"the file of your {' and '.join(name.removesuffix('_sha256') for name in changed)} as it was "
            "when the study began",
            received="other content",
            do="do not change it while a study runs; begin a new study without --resume",
        )
    costs_file = record.folder / "costs.json"
    if not costs_file.is_file():
        progress.measuring()
        shape = (data.channels, data.size, data.size)
        models = models_of(plan.options, plan.arms, data, plan.widths)
        record.write(costs_file.name, measure_costs(models, shape, threads=plan.threads, device=plan.options.device))
    results = gather(
        record,
        record.trials(plan.arms, seeds),
        seeds,
        read_json(costs_file),
        command=record.study()["command"],
        args=plan.options.to_dict(),
        env=read_json(record.folder / "env.json"),
        data=data.describe(),
    )
    record.write("results.json", results)
    files.write_bytes(record.folder / "MODEL_CARD.md", model_card(results).encode(errors="backslashreplace"))
    return results


def _default_name(options: Resolved, data: AnyData) -> str:
    if options.name is not None and not re.fullmatch(r"[\w. ()+-]*[\w()+-]", options.name):
        raise UsageError(
            expected="--name as the name of a folder", received=repr(options.name), do="choose another --name"
        )
    text = f"{data.name}-{short_name(options.model)}"
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:80] or "study"
