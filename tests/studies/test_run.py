"""A complete study in a fraction of a minute, with real training."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from foveate.errors import DataError, FoveateError, UsageError
from foveate.experiment.data import open_study_data
from foveate.experiment.options import Resolved, StudyOptions
from foveate.studies import run
from foveate.studies.card import model_card
from foveate.studies.costs import measure_costs
from foveate.studies.outline import Outline
from foveate.studies.run import Progress, exit_code, run_study
from studies.tiny import InProcess, tiny

SLUGS = ["none__host", "control__residual", "cbam-identity__residual", "cbam-paper__residual"]


class Recorder(Progress):
    """Records the events."""

    def __init__(self) -> None:
        self.trials: list[tuple[str, ...]] = []
        self.plan = ""

    def outlined(self, plan: Outline) -> None:
        self.plan = str(plan)

    def started(self, folder: Path, trials: int, finished: int) -> None:
        self.counts = (trials, finished)

    def trial_started(self, slug: str, seed: int) -> None:
        self.trials.append(("start", slug, str(seed)))

    def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
        self.trials.append(("epoch", slug, f"{row['epoch']}/{epochs}"))

    def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
        self.trials.append(("done", slug, status))


@pytest.fixture(scope="module", autouse=True)
def _brief_latencies() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", partial(measure_costs, seconds=0.0))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder, list[Path]]:
    recorder, reports = Recorder(), []
    options = tiny(tmp_path_factory.mktemp("runs"), attention=("cbam", "cbam-paper"), control=True, seeds=2, jobs=2)
    folder = run_study(
        options, progress=recorder, report=reports.append, command="foveate study --tiny", engine=InProcess()
    )
    assert folder is not None
    return folder, recorder, reports


@pytest.fixture(scope="module")
def results(study: tuple[Path, Recorder, list[Path]]) -> dict[str, Any]:
    return json.loads((study[0] / "results.json").read_text())


def test_the_record_is_complete(study: tuple[Path, Recorder, list[Path]]) -> None:
    folder = study[0]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    top = {"args.yaml", "env.json", "data.json", "study.json", "costs.json", "results.json"}
    top |= {"summary.csv", "failures.csv", "log.jsonl", "MODEL_CARD.md"}
    each = ("trial.json", "history.csv", "weights/best.safetensors")
    trials = {f"trials/{slug}__seed{seed}/{name}" for slug in SLUGS for seed in (0, 1) for name in each}
    maps = {f"trials/{slug}__seed0/maps.npz" for slug in SLUGS[2:]}
    assert files == top | trials | maps
    assert exit_code(folder) == 0


def test_every_event_was_reported_and_the_report_was_built(study: tuple[Path, Recorder, list[Path]]) -> None:
    folder, recorder, reports = study
    assert reports == [folder]
    assert recorder.counts == (8, 0)
    assert "CBAM (paper start)" in recorder.plan
    assert "4 arms x 2 seeds = 8 trials" in recorder.plan
    for slug in SLUGS:
        assert [kind for kind, *rest in recorder.trials if rest[0] == slug].count("done") == 2
        assert ("epoch", slug, "1/1") in recorder.trials


def test_the_results_keep_to_their_schema(study: tuple[Path, Recorder, list[Path]], results: dict[str, Any]) -> None:
    assert set(results) >= {
        *(
            "schema",
            "foveate",
            "created",
            "command",
            "args",
            "env",
            "data",
            "model",
            "seeds",
            "verdict",
            "statistics",
            "arms",
            "failures",
        )
    }
    assert (results["schema"], results["command"], results["seeds"], results["failures"]) == (
        2,
        "foveate study --tiny",
        [0, 1],
        [],
    )
    assert [arm["slug"] for arm in results["arms"]] == SLUGS
    assert results["advice"].startswith(("Keep", "Use", "Give"))
    assert results["changed"] == [
        "attention",
        "seeds",
        "epochs",
        "batch",
        "canvas",
        "fragments",
        "train_count",
        "val_count",
        "test_count",
    ]
    assert [one["name"] for one in results["classes"]] == results["data"]["classes"]
    assert all(set(one["arms"]) <= set(SLUGS[1:]) for one in results["classes"])
    assert [np.sum(matrix) for matrix in results["confusion"].values()] == [2 * 40, 2 * 40]
    assert next(iter(results["confusion"])) == SLUGS[0]
    assert (results["margin"], results["design"]) == (1.0, {"kind": "fixed", "least": 2, "most": 2, "looks": 1})
    for arm in results["arms"]:
        assert arm["n_done"] == 2
        assert arm["mean"] == pytest.approx(np.mean([arm["scores"]["0"], arm["scores"]["1"]]))
        assert 0 <= arm["mean"] <= 1
        assert {"parameters", "added_parameters", "macs", "elementwise", "bytes", "latency", "peak_memory"} <= set(
            arm["cost"]
        )
        assert arm["cost"]["macs"] > 1e6
        assert [len(curve) for curve in arm["curves"].values()] == [1, 1]
    plain, control, identity, paper = results["arms"]
    assert (plain["verdict"], plain["difference"], plain["sites"], plain["plan"]) == ("baseline", None, 0, None)
    assert control["pointing_game"] is plain["maps"] is control["maps"] is None
    for arm in (identity, paper):
        assert arm["sites"] == len(arm["plan"]["sites"]) == 3
        if arm["difference"]:  # two seeds may have equal scores, and then chance cannot be measured
            assert arm["difference"]["estimate"] == pytest.approx(100 * (arm["mean"] - plain["mean"]))
        assert set(arm["pointing_game"]) == {"spatial"}
        assert 0 < arm["pointing_game"]["spatial"]["mass"] < 1
        with np.load(study[0] / arm["maps"]) as maps:
            assert maps["images"].shape == (8, 24, 24, 3)
    assert identity["cost"]["added_parameters"] == identity["plan"]["parameters"] == paper["cost"]["added_parameters"]
    assert set(results["verdict"]) == {"headline", "sentences"}


def test_trials_describe_the_files_of_their_folder(
    study: tuple[Path, Recorder, list[Path]], results: dict[str, Any]
) -> None:
    folder = study[0]
    for slug in SLUGS:
        trial = json.loads((folder / "trials" / f"{slug}__seed1" / "trial.json").read_text())
        assert (trial["arm"], trial["seed"], trial["status"], trial["best_epoch"]) == (slug, 1, "done", 1)
        assert trial["test_score"] == trial["test"]["correct"] / trial["test"]["count"]
        assert trial["test"]["count"] == 40
    weights = load_file(folder / "trials" / f"{SLUGS[2]}__seed0" / "weights" / "best.safetensors")
    assert any("foveate_attention" in name for name in weights)
    with (folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["seed"]) for row in rows} == {(slug, seed) for slug in SLUGS for seed in "01"}
    assert (folder / "failures.csv").read_text() == "arm,seed,status,error\n"


def test_the_saved_arguments_are_the_resolved_ones(
    study: tuple[Path, Recorder, list[Path]], results: dict[str, Any]
) -> None:
    args = yaml.safe_load((study[0] / "args.yaml").read_text())
    assert args == results["args"]
    assert (args["model"], args["lr"], args["epochs"]) == ("resnet8", StudyOptions().resolve().lr, 1)
    data = json.loads((study[0] / "data.json").read_text())
    assert data["fingerprint"] == open_study_data(Resolved.from_dict(args)).fingerprint


def test_the_card_is_safe_markdown(study: tuple[Path, Recorder, list[Path]], results: dict[str, Any]) -> None:
    card = (study[0] / "MODEL_CARD.md").read_text()
    assert results["data"]["fingerprint"] in card
    assert "foveate study --tiny" in card
    hostile = {**results, "command": "`rm` <script>alert(1)</script>\n# new | heading"}
    safe = model_card(hostile)
    assert "<script>" not in safe
    assert len(safe.splitlines()) == len(card.splitlines())


def test_a_finished_study_can_be_resumed(study: tuple[Path, Recorder, list[Path]]) -> None:
    folder, recorder = study[0], Recorder()
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*") if path.is_file()}
    options = tiny(folder.parents[1], attention=("cbam", "cbam-paper"), control=True, seeds=2, resume=True)
    assert run_study(options, progress=recorder, command="other") == folder
    assert (recorder.counts, recorder.trials) == ((8, 8), [])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    recorder = Recorder()
    assert run_study(tiny(tmp_path, dry_run=True), progress=recorder) is None
    assert "trials" in recorder.plan
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reliability(19)
def test_diverged_and_failed_trials_are_recorded_and_the_others_run(tmp_path: Path) -> None:
    folder = run_study(tiny(tmp_path, seeds=2, lr=1e38, optimizer="sgd", attention=("se",)), engine=InProcess())
    assert folder is not None
    results = json.loads((folder / "results.json").read_text())
    assert exit_code(folder) == 4
    assert {failure["status"] for failure in results["failures"]} == {"diverged"}
    assert len((folder / "failures.csv").read_text().splitlines()) == 5
    assert "epoch 1" in results["failures"][0]["error"]
    assert {arm["verdict"] for arm in results["arms"]} == {"not run"}
    assert all(arm["mean"] is None for arm in results["arms"])


def test_a_truncated_image_stops_the_study_at_once_and_is_named(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for label in ("cat", "dog"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for k in range(count):
                pixels = np.random.default_rng(k).integers(0, 255, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{k}.jpg")
    broken = tmp_path / "data" / "train" / "dog" / "7.jpg"  # not one of those that are read to time a step
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(DataError, match=r"7\.jpg"):
        run_study(tiny(tmp_path / "runs", data=tmp_path / "data", imgsz=32, batch=4, seeds=3))
    (folder,) = (tmp_path / "runs" / "study").iterdir()
    assert len(list((folder / "trials").glob("*/trial.json"))) < 6
    assert not (folder / "results.json").exists()


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"attention": ("cbma",)}, "did you mean 'cbam'"),
        ({"model": "resnt8"}, "did you mean"),
        ({"where": ("layer9.*",)}, "layer9"),
        ({"canvas": 8}, "canvas"),
        ({"lr": -1.0}, "lr"),
        ({"batch": 0}, "batch"),
        ({"epochs": 0}, "epochs"),
        ({"budget": 5.0}, "budget"),
        ({"name": "../up"}, "the name of a folder"),
        ({"resume": True}, "Received none"),
        ({"data": Path("no-such-folder")}, "no-such-folder"),
    ],
    ids=str,
)
def test_impossible_options_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], part: str
) -> None:
    with pytest.raises(FoveateError) as caught:
        run_study(tiny(tmp_path, **wrong))
    assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"attention": ("cbma",)}, {"epochs": 0}], ids=str)
def test_wrong_options_are_refused_before_the_data_are_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    monkeypatch.setattr(run, "open_study_data", None)
    with pytest.raises(UsageError):
        run_study(tiny(tmp_path, **wrong))


def test_a_budget_cuts_epochs_then_seeds_and_reports_it(tmp_path: Path) -> None:
    class Plan(Recorder):
        def outlined(self, plan: Outline) -> None:
            self.outline = plan

    recorder = Plan()
    run_study(tiny(tmp_path, dry_run=True, epochs=8, seeds=6, train_count=2000), progress=recorder)
    plan = recorder.outline
    assert plan.within(None) is plan
    less = plan.within(plan.seconds * 0.95)
    assert less.cuts == (f"epochs 8 -> {less.options.epochs}",)
    few = plan.within(least(plan) + 1e-6)
    assert (few.options.epochs, few.options.seeds) == (1, 3)
    assert few.cuts == ("epochs 8 -> 1", "seeds 6 -> 3")
    with pytest.raises(UsageError, match="budget of at least"):
        plan.within(least(plan) * 0.9)


def least(plan: Outline) -> float:
    return dataclasses.replace(plan, options=dataclasses.replace(plan.options, epochs=1, seeds=3)).seconds
