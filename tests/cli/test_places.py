"""Runs that are used from another working directory than the one they began in."""

import functools
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from cli.conftest import Foveate
from cli.test_train_again import interrupt_training
from cli.unsplit import BOXES, QUICK, boxed, photos, record
from foveate import models
from foveate.experiment import data as experiment_data
from foveate.studies.costs import measure_costs
from studies.tiny import InProcess

pytestmark = pytest.mark.usefixtures("opened_anew")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Return a function that goes to another folder and returns the previous one."""

    def go() -> Path:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        experiment_data._open.cache_clear()
        return tmp_path

    return go


def relative(folder: Path) -> None:
    """Write the args of a run as earlier versions did: with relative paths."""
    path = folder / "args.yaml"
    values = yaml.safe_load(path.read_text())
    places = {name: Path(values[name]).name for name in ("data", "weights") if values.get(name)}
    path.write_text(yaml.safe_dump({**values, **places}))


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_a_run_finds_its_data_from_anywhere(foveate: Foveate, elsewhere: Callable[[], Path], task: str) -> None:
    make, options = (photos, QUICK) if task == "classify" else (boxed, BOXES)
    run = Path(foveate("train", make("data"), *options, "--name", "p").last)
    first = json.loads(foveate("val", "--run", run, "--json").out)
    home = elsewhere()
    outcome = foveate("val", "--run", run, "--json")
    assert outcome.code == 0, outcome.err
    assert {**json.loads(outcome.out), "run": first["run"]} == first
    if task == "classify":
        for path in photos("data").rglob("*.png"):
            Image.new("RGB", (32, 32)).save(path)
        outcome = foveate("val", "data", "--run", run)
        assert "is a copy" not in outcome.err
        assert "have the names of training images" in outcome.err
    (home / "data").rename(home / "moved")
    outcome = foveate("val", "--run", run)
    assert outcome.code == 3
    assert f"expected the data of the run at {home / 'data'}; received no such folder" in outcome.err
    assert "foveate val DATA --run" in outcome.err
    count = json.loads(foveate("val", home / "moved", "--run", run, "--json").out)["count"]
    assert count == first["count"]


def test_a_run_of_an_earlier_version_finds_its_data_from_where_it_began(
    foveate: Foveate, elsewhere: Callable[[], Path]
) -> None:
    run = Path(foveate("train", photos("data"), *QUICK, "--name", "p").last)
    relative(run)
    assert foveate("val", "--run", run).code == 0
    elsewhere()
    outcome = foveate("val", "--run", run)
    assert (
        outcome.code,
        f"the data of the run at {Path('data').resolve()}; received no such folder" in outcome.err,
    ) == (
        3,
        True,
    )


@pytest.mark.parametrize("earlier", [False, True])
def test_a_training_is_resumed_from_anywhere(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch, elsewhere: Callable[[], Path], earlier: bool
) -> None:
    torch.manual_seed(0)
    models.save_weights(models.build("resnet8", 2), Path("host.safetensors"))
    begun = ("train", photos("data"), *QUICK, "--weights", "host.safetensors", "--name", "p")
    assert interrupt_training(foveate, monkeypatch, *begun).code == 130
    if earlier:
        relative(Path("runs/train/p"))
    home = elsewhere()
    asked = (
        "train",
        home / "data",
        *QUICK,
        "--weights",
        "../host.safetensors",
        "--project",
        home / "runs",
        "--name",
        "p",
        "--resume",
    )
    shutil.copytree(home / "data", "other")
    Path("other/dark/00.png").write_bytes(Path("other/light/00.png").read_bytes())
    refused = foveate("train", "other", *asked[2:])
    assert (refused.code, "the data's content: " in refused.err) == (2, True)
    outcome = foveate(*asked)
    assert outcome.code == 0, outcome.err
    assert outcome.last == str(home / "runs" / "train" / "p")


def test_the_same_weights_with_other_anchors_are_not_resumed(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The anchors are in a file beside the weights, and a copy of the weights has no such file."""
    first = Path(foveate("train", boxed("data", count=30), *BOXES, "--data-seed", 1, "--name", "old").last)
    copy = shutil.copy(first / "weights" / "best.safetensors", "copy.safetensors")
    begun = ("train", boxed("boxes"), *BOXES, "--epochs", 2, "--name", "p", "--weights")
    assert interrupt_training(foveate, monkeypatch, *begun, first / "weights" / "best.safetensors").code == 130
    outcome = foveate(*begun, copy, "--resume")
    assert (outcome.code, "the anchors: [[" in outcome.err) == (2, True)


def test_the_arms_of_a_study_have_the_same_anchors(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Path(foveate("train", boxed("data", count=30), *BOXES, "--data-seed", 1, "--name", "old").last)
    copy = shutil.copy(first / "weights" / "best.safetensors", "copy.safetensors")
    data = boxed("boxes")
    begun = (
        "study",
        data,
        *BOXES,
        "--attention",
        "eca",
        "--no-control",
        "--seeds",
        1,
        "--jobs",
        1,
        "--name",
        "s",
        "--weights",
    )
    with monkeypatch.context() as patch:
        patch.setattr("foveate.studies.run._run_trials", lambda *_: signal.raise_signal(signal.SIGINT))
        assert foveate(*begun, first / "weights" / "best.safetensors").code == 130
    outcome = foveate(*begun, copy, "--resume")
    assert (outcome.code, "the data's, weights' or model's content: " in outcome.err) == (2, True)
    assert foveate(*begun, first / "weights" / "best.safetensors", "--resume", "--dry-run").code == 0


def test_a_study_is_resumed_from_anywhere_and_its_report_shows_the_typed_path(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch, elsewhere: Callable[[], Path]
) -> None:
    options = (*QUICK, "--epochs", 1, "--attention", "eca", "--no-control", "--seeds", 1, "--jobs", 1, "--name", "s")
    begun = ("study", photos("photos"), *options)
    monkeypatch.setattr("foveate.studies.run.LocalEngine", lambda *_: InProcess())
    with monkeypatch.context() as patch:
        patch.setattr("foveate.studies.run.measure_costs", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        assert foveate(*begun).code == 130
    monkeypatch.setattr("foveate.studies.run.measure_costs", functools.partial(measure_costs, seconds=0))
    folder = Path("runs/study/s").resolve()
    study = record(folder, "study.json")
    outcome = foveate(*begun, "--resume", "--json")
    assert (outcome.code, "(2 of 2 trials are already finished)" in outcome.err) == (0, True), outcome.err
    assert json.loads(outcome.out)["args"]["data"] == "photos"
    for page in ("report.html", "MODEL_CARD.md", "results.json"):
        assert str(Path.cwd()) not in (folder / page).read_text(encoding="utf-8")
    home = elsewhere()
    asked = ("study", "../photos", *options, "--project", home / "runs", "--resume")
    outcome = foveate(*asked, "--json")
    assert (outcome.code, "(2 of 2 trials are already finished)" in outcome.err) == (0, True), outcome.err
    tried = folder / "trials" / "eca-identity__residual__seed0"
    assert (
        json.loads(foveate("val", "--run", tried, "--json").out)["accuracy"]
        == record(tried, "trial.json")["test_score"]
    )
    # as earlier versions wrote it
    (folder / "study.json").write_text(json.dumps({**study, "asked": {**study["asked"], "data": "photos"}}))
    assert foveate(*asked).code == 0
    outcome = foveate(*asked, "--lr", 0.5)
    assert (outcome.code, "lr: 0.002 -> 0.5" in outcome.err, "data: " in outcome.err) == (2, True, False)
