"""Models measured on their own data after these have changed, on copies of them, and on other data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image

from cli.conftest import Foveate
from cli.unsplit import BOXES, QUICK, boxed, photos, record
from foveate.experiment import data as experiment_data
from foveate.experiment import run_folder as runs

pytestmark = pytest.mark.usefixtures("opened_anew")


def test_val_and_predict_read_16_bits_with_the_scale_of_the_training(foveate: Foveate) -> None:
    """Alone, the other image would be stretched to its own range, 300 to 400."""
    for kind, level in (("dark", 0), ("light", 3000)):
        Path("data", kind).mkdir(parents=True)
        for k in range(7):
            Image.fromarray(np.full((32, 32), level + 150 * k, np.uint16)).save(Path("data", kind, f"{k}.png"))
    run = Path(foveate("train", "data", *QUICK, "--name", "p").last)
    assert record(run, "data.json")["greys"] == [0, 3900]
    Path("other", "dark").mkdir(parents=True)
    Image.fromarray(np.linspace(300, 400, 32 * 32).reshape(32, 32).astype(np.uint16)).save("other/dark/new.png")
    outcome = foveate("val", "other", "--run", run)
    assert "0 to 3900 become 0 to 255 in every image, as in training; these hold 300 to 400" in outcome.err
    opened = experiment_data.open_study_data(
        runs.read_run(run).options.on_folder(Path("other")), None, "test", greys=(0, 3900)
    )
    prepared = runs.load_run(run).preprocess("other/dark/new.png")
    assert torch.allclose(prepared[0], opened.test[0][0], atol=0.02)  # they differ in the size of the working copy
    with Image.open("other/dark/new.png") as image:
        assert torch.equal(runs.load_run(run).preprocess(image), prepared)


def test_val_without_pictures_is_refused(foveate: Foveate) -> None:
    """Only training images are left in the folder."""
    folder = Path(foveate("train", photos("data"), *QUICK, "--name", "p").last)
    for paths in record(folder, "data.json")["split"]["test"].values():
        for path in paths:
            (Path("data") / path).unlink()
    experiment_data._open.cache_clear()
    outcome = foveate("val", "--run", folder)
    assert outcome.code == 3, outcome.out
    assert "none of the run's test images" in outcome.err
    assert not Path("runs/val").exists()
    assert foveate("val", "--run", folder, "--split", "val").code == 0


@pytest.mark.parametrize("task", ["classify", "detect"])
def test_pictures_stay_in_their_split_when_a_folder_grows(foveate: Foveate, task: str) -> None:
    """The split is random; a new one would measure training images."""
    detect = task == "detect"
    data = boxed("data") if detect else photos("data")
    folder = Path(foveate("train", data, *(BOXES if detect else QUICK), "--name", "p").last)
    split = record(folder, "data.json")["split"]
    tested = {path for paths in split["test"].values() for path in paths}
    assert sum(len(paths) for name in ("train", "val", "test") for paths in split[name].values()) == (
        24 if detect else 28
    )
    (boxed if detect else photos)("data", 40)  # the first ones do not change
    outcome = foveate("val", "--run", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert "have changed" in outcome.err

    trained = runs.read_run(folder)
    opened: Any = experiment_data.open_study_data(trained.options, trained.split, "test")
    shown = [one.path for one in (opened.test.truths if detect else opened.test.items)]
    learnt = {path for name in ("train", "val") for paths in split[name].values() for path in paths}
    assert tested < set(shown)
    assert not learnt & set(shown)
    assert json.loads(outcome.out)["count"] == len(shown)
    assert len(shown) == len(tested) + (16 if detect else 52), "an image that came later was not learnt from"
    assert [trained.trained_on(one) for one in (data, data.resolve(), Path("elsewhere"))] == [True, True, False]


@pytest.fixture(params=["classify", "detect"])
def learnt(request: pytest.FixtureRequest, foveate: Foveate) -> tuple[Callable[..., Path], Path]:
    """Return a function that makes an unsplit folder, and a run on such a folder, "data"."""
    make, options = (photos, QUICK) if request.param == "classify" else (boxed, BOXES)
    return make, Path(foveate("train", make("data"), *options, "--name", "p").last)


def measured(foveate: Foveate, run: Path, other: Path | str, split: str = "test") -> tuple[int, str]:
    """Return how many images are measured, and stderr."""
    outcome = foveate("val", other, "--run", run, "--split", split, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["count"], outcome.err


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".txt"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_data_without_splits_are_measured_whole(
    foveate: Foveate, learnt: tuple[Callable[..., Path], Path], split: str
) -> None:
    make, run = learnt
    other = make("other")
    for path in files_of(other):
        path.rename(path.with_stem(f"new{path.stem}"))
    count, err = measured(foveate, run, other, split)
    assert count == len([path for path in files_of(other) if path.suffix == ".png"]) > 20
    logged = [line for line in err.splitlines() if line.startswith("other: ")]
    assert any(line.endswith(f"all of it {split}") for line in logged), logged


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(("change", "more"), [("none", 0), ("grown", 1), ("thinned", -1)])
def test_training_pictures_of_a_copy_of_the_runs_data_are_left_out(
    foveate: Foveate, learnt: tuple[Callable[..., Path], Path], change: str, more: int, moved: bool
) -> None:
    _, run = learnt
    tested = [path for paths in record(run, "data.json")["split"]["test"].values() for path in paths]
    copy = Path("data").rename("copy") if moved else Path(shutil.copytree("data", "copy"))
    for path in [
        path
        for path in files_of(copy)
        if path.stem == Path(tested[0]).stem and path.parent.name in (*Path(tested[0]).parts, "train")
    ]:
        if change == "grown":
            shutil.copy(path, path.with_stem("zz"))
        elif change == "thinned":
            path.unlink()
    count, err = measured(foveate, run, copy)
    assert count == len(tested) + more
    assert "By its file names, copy is a copy of the run's own data, so training images are left out." in err


@pytest.mark.parametrize("moved", [False, True])
def test_names_of_training_pictures_are_reported(foveate: Foveate, moved: bool) -> None:
    """Other images under the same names, or images that may be either."""
    run = foveate("train", photos("data"), *QUICK, "--name", "p").last
    split = record(run, "data.json")["split"]
    learnt = sum(map(len, split["train"].values()))
    other, count = photos("other"), 28
    for path in files_of(other):
        Image.new("RGB", (32, 32)).save(path)
    if moved:
        Path("data").rename("elsewhere")
        Path(other, split["test"]["dark"][0]).rename(
            other / "dark" / "new.png"
        )  # so that neither folder has all names of the other
    found, err = measured(foveate, Path(run), other)
    assert found == count
    assert f"{learnt} images of other have the names of training images" in err


def test_other_data_may_be_only_a_test_set(foveate: Foveate) -> None:
    run = Path(foveate("train", photos("data"), *QUICK, "--name", "p").last)
    photos("other/test", 2)
    Image.new("RGB", (32, 32)).save("other/test/dark/00.png")  # another image with the name of a training image
    shutil.copytree("other/test/dark", "nights/dark")  # one class only
    assert measured(foveate, run, "other") == (4, ANY)
    assert measured(foveate, run, "nights") == (2, ANY)
    refused = foveate("val", "other", "--run", run, "--split", "val")
    assert (refused.code, "measure what is there: --split test" in refused.err) == (3, True)
    photos("other/train", 4)
    photos("other/val", 3)
    assert [measured(foveate, run, "other", split)[0] for split in ("val", "test")] == [6, 4]
    shutil.rmtree("other/test")
    experiment_data._open.cache_clear()
    assert measured(foveate, run, "other", "val") == (6, ANY), "val/ is there, so nothing is cut from train/"


def test_other_boxes_may_be_only_a_test_set(foveate: Foveate) -> None:
    run = Path(foveate("train", boxed("data"), *BOXES, "--name", "p").last)
    other = Path(shutil.copytree("data", "other"))
    for split, name in (("val", "a"), ("test", "b")):
        for kind, suffix in (("images", ".png"), ("labels", ".txt")):
            source = other / kind / "train" / f"00{suffix}"
            target = other / kind / split / f"{name}{suffix}"
            target.parent.mkdir()
            shutil.copy(source, target)
    for kind in ("images", "labels"):
        shutil.rmtree(other / kind / "train")
    (other / "data.yaml").write_text(
        (other / "data.yaml").read_text().replace("train: images/train", "val: images/val\ntest: images/test")
    )
    count, err = measured(foveate, run, other)
    assert (count, "; only test\n" in err) == (1, True)
