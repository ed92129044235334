"""Run 20 studies of each kind of planted data; write a record, and from it the page docs/results/planted.md.

    python tools/planted_studies.py [--record docs/results/planted.json] [--studies 20] [--page docs/results/planted.md]

The record is written after each study. A study that is already in it, with the present version of the data, does not
run again. Every study has its own data (`data_seed`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate import files
from foveate.data.planted import KINDS, PREFIX, PlantedKind, PlantedOptions, fingerprint, make_planted
from foveate.experiment.environment import cores, describe_environment
from foveate.experiment.options import StudyOptions
from foveate.studies.engine import Engine, Event
from foveate.studies.run import run_study
from foveate.studies.trial import Trial, run_trial

STUDIES, SEEDS = 20, 5
RECORD = Path("docs/results/planted.json")
# The arms that can use the planted effect; for "neither" there are none.
FINDERS: Mapping[PlantedKind, tuple[str, ...]] = {"where": ("spatial",), "what": ("se",), "neither": ()}


class InThisProcess(Engine):
    """Run trials one after the other in this process, because they take only seconds."""

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        """Run every trial."""
        for trial in trials:
            on_event(Event("started", trial))
            on_event(Event("done", trial, status=run_trial(trial)["status"]))


def study(kind: PlantedKind, data_seed: int, project: Path, seeds: int = SEEDS, **options: Any) -> dict[str, Any]:
    """Run one study; return each arm's verdict, score and difference, and whether it found the planted effect."""
    one_thread = {"jobs": cores(), "device": "cpu"}  # one job per core: small networks gain nothing from threads
    place: dict[str, Any] = {"project": project, "name": f"{kind}-{data_seed}", **one_thread}
    asked = StudyOptions(data=Path(f"{PREFIX}{kind}"), data_seed=data_seed, seeds=seeds, **place, **options)
    folder = run_study(
        asked, engine=InThisProcess(), command=f"foveate study {PREFIX}{kind} --seeds {seeds} --data-seed {data_seed}"
    )
    if folder is None:
        raise RuntimeError("a study that is no dry run has a folder")
    results = json.loads((folder / "results.json").read_bytes())
    arms = {arm["mechanism"]: {key: arm[key] for key in ("verdict", "mean", "difference")} for arm in results["arms"]}
    drawn = json.loads((folder / "data.json").read_bytes())["fingerprint"]
    known = {"kind": kind, "data_seed": data_seed, "data": drawn, "commit": _commit()}
    return {**known, "found": found(kind, arms), "headline": results["verdict"]["headline"], "arms": arms}


def _commit() -> str | None:
    asked = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None


def found(kind: PlantedKind, arms: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether exactly the arms that can help got "helps"; for "neither", whether no arm helps or hurts."""
    if not FINDERS[kind]:
        return {arm["verdict"] for arm in arms.values()} <= {"baseline", "practically equal", "undecided"}
    return {name for name, arm in arms.items() if arm["verdict"] == "helps"} == set(FINDERS[kind])


def run(record: Path, studies: int) -> dict[str, Any]:
    """Run the studies that are missing in the record, and return the record."""
    kept = (
        json.loads(record.read_bytes())
        if record.is_file()
        else {"environment": describe_environment(), "seeds": SEEDS, "studies": []}
    )
    for data_seed in range(studies):
        for kind in KINDS:
            options = PlantedOptions(kind, seed=data_seed)
            drawn = fingerprint(options, make_planted(options))
            if any(one["data"] == drawn for one in kept["studies"]):
                continue
            others = [one for one in kept["studies"] if (one["kind"], one["data_seed"]) != (kind, data_seed)]
            with tempfile.TemporaryDirectory() as folder:
                kept["studies"] = [*others, study(kind, data_seed, Path(folder))]
            files.write_json(record, kept)
            print(f"planted:{kind} {data_seed}: {kept['studies'][-1]['headline']}", flush=True)
    return kept


def page(kept: Mapping[str, Any]) -> str:
    """Return the tables of the page."""
    done, wanted = len(kept["studies"]), len(KINDS) * STUDIES
    left = (
        ""
        if done == wanted
        else f" What was aimed at, {STUDIES - 1} of {STUDIES} of each kind, is not shown before all have."
    )
    lines = [f"{done} of {wanted} studies have run.{left}", ""]
    lines += [
        "| planted | studies | found what is there | named something that is not |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind in KINDS:
        some = [one for one in kept["studies"] if one["kind"] == kind]
        wrong = sum(
            any(arm["verdict"] == "helps" and name not in FINDERS[kind] for name, arm in one["arms"].items())
            for one in some
        )
        lines.append(f"| {kind} | {len(some)} | {sum(one['found'] for one in some)} | {wrong} |")
    for kind in KINDS:
        lines += [
            "",
            f"### planted:{kind}",
            "",
            "| data seed | plain host, % | control | SE | spatial |",
            "| ---: | ---: | --- | --- | --- |",
        ]
        for one in sorted((one for one in kept["studies"] if one["kind"] == kind), key=lambda one: one["data_seed"]):
            cells = [_cell(one["arms"][name]) for name in ("control", "se", "spatial")]
            lines.append(f"| {one['data_seed']} | {100 * one['arms']['none']['mean']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(arm: Mapping[str, Any]) -> str:
    difference = arm["difference"]
    if difference is None:
        return str(arm["verdict"])
    low, high = (f"{difference[end]:+.1f}".replace("-", "−") for end in ("low", "high"))
    return f"{arm['verdict']}: {difference['estimate']:+.1f} [{low}, {high}]".replace("-", "−")


def main() -> int:
    """Run the studies, and write the page where one is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--studies", type=int, default=STUDIES, help="number of studies of each kind")
    parser.add_argument("--page", type=Path, help="rewrite the tables of this page, below its line of dashes")
    given = parser.parse_args()
    kept = run(given.record, given.studies)
    if given.page:
        head, rule, _ = given.page.read_text(encoding="utf-8").partition("\n---\n")
        files.write_bytes(given.page, f"{head}{rule}\n{page(kept)}".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
