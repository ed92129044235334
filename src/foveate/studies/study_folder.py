"""A study's folder: made once, filled trial by trial, and read to resume; each file in it is complete."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import foveate
from foveate import files, plain_yaml
from foveate.errors import UsageError
from foveate.experiment.arms import Arm
from foveate.experiment.options import PLACES, Resolved
from foveate.experiment.run_folder import free_folder, numbered
from foveate.files import read_json

_OWN = (
    "args.yaml",
    "env.json",
    "data.json",
    "study.json",
    "costs.json",
    "results.json",
    "summary.csv",
    "failures.csv",
    "log.jsonl",
)
_PAGES = ("report.html", "explorer.html", "arms.csv", "classes.csv", "MODEL_CARD.md")


class StudyFolder:
    """One study's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, options: Resolved, default_name: str) -> "StudyFolder":
        """Return a new folder, runs/study/<name> or <name>-2, ...; with `exist_ok` an old one, for `begin` to empty.

        Raises:
            UsageError: the folder to replace holds other files than those of a study.
        """
        parent, name = options.project / "study", options.name or default_name
        folder = parent / name
        if options.exist_ok and folder.exists():
            record = cls(folder)
            record._require_replaceable()
            return record
        return cls(free_folder(parent, name))

    @classmethod
    def find(cls, options: Resolved, default_name: str, data: str, asked: Mapping[str, Any]) -> "StudyFolder":
        """Return the newest study of that name with these arguments and data, else the newest.

        Raises UsageError for none.
        """
        name = options.name or default_name
        numbers = numbered(options.project / "study", name)
        found = [path for path in numbers if (path / "study.json").is_file()]
        if not found:
            where = options.project / "study" / name
            raise UsageError(
                expected=f"a study to resume at {where}",
                received="none",
                do="leave --resume out, or give its --name",
            )
        return cls(
            max(found, key=lambda path: (not differences(read_json(path / "study.json"), data, asked), numbers[path]))
        )

    def begin(
        self, study: Mapping[str, Any], args: Mapping[str, Any], env: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        """Empty the folder and write the records; study.json comes last, as it makes the folder a study."""
        self._clear()
        files.write_bytes(self.folder / "args.yaml", plain_yaml.dump(args).encode())
        files.write_json(self.folder / "env.json", env)
        files.write_json(self.folder / "data.json", data)
        files.write_json(self.folder / "study.json", study)
        self.log("study", data=study["data"])

    def study(self) -> dict[str, Any]:
        """Return study.json."""
        return read_json(self.folder / "study.json")

    def trial_folder(self, slug: str, seed: int) -> Path:
        """Return the folder of one trial."""
        return self.folder / "trials" / f"{slug}__seed{seed}"

    def trials(self, arms: Sequence[Arm], seeds: Sequence[int]) -> dict[str, dict[int, dict[str, Any]]]:
        """Return the finished trials by arm and seed."""
        found: dict[str, dict[int, dict[str, Any]]] = {arm.slug: {} for arm in arms}
        for slug, seed, path in self._trial_files(arms, seeds):
            if path.is_file():
                found[slug][seed] = read_json(path)
        return found

    def missing(self, arms: Sequence[Arm], seeds: Sequence[int]) -> list[tuple[Arm, int]]:
        """Return the trials still to run, seed by seed; failed ones run again, diverged ones would diverge again."""
        trials = self.trials(arms, seeds)
        states = {(arm.slug, seed): trials[arm.slug].get(seed, {}).get("status") for arm in arms for seed in seeds}
        return [(arm, seed) for seed in seeds for arm in arms if states[arm.slug, seed] not in ("done", "diverged")]

    def begun(self, arms: Sequence[Arm], seeds: Sequence[int]) -> list[int]:
        """Return the seeds up to the last one with a trial that has ended."""
        ended = [seed for _, seed, path in self._trial_files(arms, seeds) if path.is_file()]
        return [seed for seed in seeds if seed <= max(ended, default=-1)]

    def stop(self, seeds: int, why: str) -> None:
        """Write into study.json after how many seeds and why a sequential study stopped."""
        files.write_json(self.folder / "study.json", {**self.study(), "stopped": {"seeds": seeds, "why": why}})

    def sweep(self) -> None:
        """Remove the remains of interrupted writes and trials."""
        files.sweep(self.folder)
        for folder in (self.folder / "trials").glob("*"):
            if folder.is_dir() and not (folder / "trial.json").exists():
                shutil.rmtree(folder)

    def log(self, event: str, **values: Any) -> None:
        """Append an event to log.jsonl."""
        files.append_line(self.folder / "log.jsonl", {"time": round(time.time(), 3), "event": event, **values})

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the record."""
        files.write_json(self.folder / name, value)

    def write_tables(self, trials: Mapping[str, Mapping[int, Mapping[str, Any]]], seeds: Sequence[int]) -> None:
        """Write summary.csv, with one row for each trial, and failures.csv."""
        rows = [trials[slug][seed] for slug in trials for seed in seeds if seed in trials[slug]]
        columns = (
            "arm",
            "seed",
            "status",
            "best_epoch",
            "val_score",
            "test_score",
            "test_loss",
            "seconds",
        )
        files.write_csv(self.folder / "summary.csv", rows, columns)
        files.write_csv(
            self.folder / "failures.csv",
            [row for row in rows if row["status"] != "done"],
            ("arm", "seed", "status", "error"),
        )

    def _trial_files(self, arms: Sequence[Arm], seeds: Sequence[int]) -> Iterator[tuple[str, int, Path]]:
        for arm in arms:
            for seed in seeds:
                yield arm.slug, seed, self.trial_folder(arm.slug, seed) / "trial.json"

    def _require_replaceable(self) -> None:
        known = {*_OWN, *_PAGES, files.LOCK, "trials", "plots"}
        strange = [
            path.name
            for path in self.folder.iterdir()
            if path.name not in known and not path.name.endswith(files.TEMPORARY)
        ]
        if strange:
            raise UsageError(
                expected=f"only a study's own files in {self.folder}",
                received=repr(sorted(strange)[0]),
                do="choose another --name; nothing was changed",
            )

    def _clear(self) -> None:
        (self.folder / "study.json").unlink(missing_ok=True)
        for name in ("trials", "plots"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for path in self.folder.iterdir():
            if path.name != files.LOCK:
                path.unlink()


def require_same(study: Mapping[str, Any], data: str, asked: Mapping[str, Any]) -> None:
    """Raise a UsageError that names each difference, if arguments, data or version differ from those of the study."""
    if changed := differences(study, data, asked):
        raise UsageError(
            expected="the arguments, data and version that the study began with",
            received="; ".join(changed),
            do="repeat the first command with --resume, or leave --resume out to begin a new study",
        )


def differences(study: Mapping[str, Any], data: str, asked: Mapping[str, Any]) -> list[str]:
    """Return how the present arguments, data and version differ from those in study.json."""
    before = {**study["asked"], "the data's, weights' or model's content": study["data"], "foveate": study["foveate"]}
    now = {**asked, "the data's, weights' or model's content": data, "foveate": foveate.__version__}
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in {**before, **now}
        if name not in PLACES and before.get(name) != now.get(name)  # earlier versions recorded these too
    ]
