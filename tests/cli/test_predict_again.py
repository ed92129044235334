"""Predictions where earlier ones exist: in the output folder, and in the searched folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Foveate
from cli.unsplit import BOXES, QUICK, boxed, photos
from foveate.detection.detections import Detections
from foveate.errors import DataError
from foveate.training.box_predictions import DRAWN, BoxOptions, predict_boxes

pytestmark = pytest.mark.usefixtures("opened_anew")


@pytest.fixture(autouse=True)
def _sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "foveate.training.box_predictions.detect", lambda model, images, **more: [Detections([], [], [])] * len(images)
    )


def predicted(root: Path, *names: str, pictures: bool = True) -> set[str]:
    """Predict images of these names into the same folder, and return the files in its `pictures`."""
    from torch import nn

    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / name)
    made = root / "made"
    options = BoxOptions(pictures=pictures)
    predict_boxes(nn.Conv2d(3, 1, 1), {"classes": ["a"], "size": 32}, "model", root, names, options, made)
    return {path.relative_to(made / "pictures").as_posix() for path in (made / "pictures").rglob("*") if path.is_file()}


def test_only_pictures_of_an_earlier_prediction_are_removed(tmp_path: Path) -> None:
    assert predicted(tmp_path, "a.png", "b.png", "more/c.png") == {"a.png.jpg", "b.png.jpg", "more/c.png.jpg"}
    for mine in ("mine.jpg", "more/mine.png"):
        (tmp_path / "made" / "pictures" / mine).write_bytes(b"mine")
    assert predicted(tmp_path, "b.png", "d.png") == {"b.png.jpg", "d.png.jpg", "mine.jpg", "more/mine.png"}
    assert predicted(tmp_path, "b.png", pictures=False) == {"mine.jpg", "more/mine.png"}
    (tmp_path / "made" / "pictures" / "b.png.jpg").write_bytes(b"mine")
    assert predicted(tmp_path, "d.png") == {"b.png.jpg", "d.png.jpg", "mine.jpg", "more/mine.png"}, (
        "it was put there by hand"
    )


def test_pictures_of_an_interrupted_prediction_are_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("foveate.files.write_json", lambda *given: pytest.fail("cut short"))
        with pytest.raises(pytest.fail.Exception, match="cut short"):
            predicted(tmp_path, "a.png", "more/b.png")
    assert predicted(tmp_path, "c.png") == {"c.png.jpg"}
    assert not (tmp_path / "made" / "pictures" / "more").exists()


def test_no_record_leads_to_a_file_outside(tmp_path: Path) -> None:
    predicted(tmp_path, "a.png")
    (tmp_path / "made" / "notes.txt").write_text("mine")
    names = [str(tmp_path / "a.png"), "../a.png", "pictures/../../a.png", "notes.txt", "pictures"]
    (tmp_path / "made" / DRAWN).write_text(
        "".join(json.dumps({"picture": name}) + "\n" for name in names) + "[3]\n{}\nto"
    )
    predicted(tmp_path, "b.png")
    assert (tmp_path / "a.png").is_file()
    assert (tmp_path / "made" / "notes.txt").is_file()


@pytest.fixture
def detector(foveate: Foveate) -> str:
    return foveate("train", boxed("boxes"), *BOXES, "--name", "d").last


def test_classes_where_boxes_were_predicted(foveate: Foveate, detector: str) -> None:
    """No image and no predictions.json of boxes is left in a folder of predicted classes."""
    again = ("--name", "x", "--exist-ok")
    classifier = foveate("train", photos("photos"), *QUICK, "--name", "c").last
    folder = Path(foveate("predict", "boxes", "--run", detector, *again).last)
    assert len(list((folder / "pictures").rglob("*.jpg"))) == 24
    assert foveate("predict", "photos", "--run", classifier, *again).last == str(folder)
    assert [path.name for path in folder.iterdir()] == ["predictions.csv"]
    (folder / "predictions.json").write_text("mine")  # such as the output of --json
    assert foveate("predict", "photos", "--run", classifier, *again).code == 0
    assert (folder / "predictions.json").read_text() == "mine"


def test_earlier_results_are_skipped_unless_they_are_named(foveate: Foveate, detector: str) -> None:
    def searched(*asked: str) -> tuple[set[str], str]:
        outcome = foveate("predict", *asked, "--run", detector, "--json")
        assert outcome.code == 0, outcome.err
        return {one["file_name"] for one in json.loads(outcome.out)["images"]}, outcome.err

    own, err = searched("boxes", "--name", "x")
    assert (len(own), "passed over" in err) == (24, False)
    Path("boxes/train/plots").mkdir(parents=True)
    for record in ("args.yaml", "results.csv"):  # files that other programs write too
        Path("boxes", record).write_text("")
    Image.new("RGB", (8, 8)).save("runs/train/d/weights/shown.png")
    expected = {f"boxes/{name}" for name in own}
    found, err = searched(".")
    assert found == expected
    assert "2 folders of earlier results skipped; name one to search it." in err
    for record in ("predictions.json", "predictions.csv"):  # as after an interrupted prediction
        Path("runs/predict/x", record).unlink()
    assert searched(".")[0] == expected
    named = {f"{name}.jpg" for name in own}
    assert searched("runs/predict/x/pictures")[0] == named
    assert searched("runs/predict/x")[0] == {f"pictures/{name}" for name in named}
    outcome = foveate("predict", "runs", "--run", detector)
    assert outcome.code == DataError.exit_code
    assert "received none, with " in outcome.err
