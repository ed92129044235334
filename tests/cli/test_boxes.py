"""Train, resume, val and predict for a detector, on scenes that take seconds."""

import csv
import functools
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Foveate
from data.box_folders import write, yolo
from foveate.cli import run as command
from foveate.data import DigitScenesOptions, open_box_data
from foveate.errors import UsageError
from foveate.studies.costs import measure_costs
from foveate.training.tasks import detect
from studies.tiny import InProcess

# the canvas is not a multiple of 32, so the network's input is 64
SMALL = (
    "--task",
    "detect",
    "--canvas",
    "80",
    "--train-count",
    "48",
    "--val-count",
    "12",
    "--test-count",
    "16",
    "--batch",
    "16",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("runs")
    arguments = ["train", *SMALL, "--attention", "cbam", "--epochs", "2", "--project", str(project), "--name", "boxes"]
    assert command(arguments) == 0
    return project / "train" / "boxes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes in two folders, one file that is not an image, and a video of four frames."""
    import av

    place = tmp_path_factory.mktemp("pictures")
    scenes = open_box_data(None, digits=DigitScenesOptions(canvas=64, train=12, val=10, test=10))
    (place / "more").mkdir()
    for k, name in enumerate(("a.png", "b.png", "more/c.png")):
        Image.fromarray(scenes.image("test", k)).save(place / name)
    (place / "broken.jpg").write_bytes(b"no image")
    with av.open(str(place / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64  # type: ignore[attr-defined]
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(scenes.image("test", k), format="rgb24")
            container.mux(stream.encode(frame))  # type: ignore[attr-defined]
        container.mux(stream.encode())  # type: ignore[attr-defined]
    return place


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_trained_detector_says_what_it_is(trained: Path) -> None:
    result = json.loads((trained / "results.json").read_text())
    assert result["measure"] == "AP50"
    assert result["arm"] == {
        "mechanism": "cbam",
        "where": "sites.*",
        "start": "identity",
        "options": {},
        "replace": None,
    }
    assert result["test"]["count"] == 16
    assert sum(one["truths"] for one in result["test"]["classes"]) > 16
    assert len(json.loads((trained / "data.json").read_text())["anchors"]) == 6
    assert {path.name for path in (trained / "weights").iterdir()} == {
        "adapter.safetensors",
        "best.safetensors",
        "last.safetensors",
    }


def test_val_gives_the_numbers_of_the_training(trained: Path, foveate: Foveate) -> None:
    outcome = foveate("val", "--run", trained, "--json")
    result, before = json.loads(outcome.out), json.loads((trained / "results.json").read_text())
    assert (outcome.code, result["score"], result["coco"]) == (0, before["test_score"], before["test"]["coco"])
    assert "changed" not in outcome.err
    assert {one["name"] for one in result["classes"]} == set("0123456789")
    assert len(rows(Path(result["run"]) / "precision_recall.csv")) == 101
    assert len(rows(Path(result["run"]) / "confusion.csv")) == 11
    shown = foveate("val", "--run", trained, "--split", "val", "--conf", "0.5")
    assert "AP50" in shown.out
    assert shown.last.endswith("boxes-2")


def test_val_counts_confusions_above_the_given_confidence(trained: Path, foveate: Foveate) -> None:
    def counted(*asked: str) -> int:
        outcome = foveate("val", "--run", trained, *asked, "--json")
        assert outcome.code == 0, outcome.err
        return int(np.sum(np.array(json.loads(outcome.out)["confusion"])[:, :-1]))

    usual, all_of_them = counted(), counted("--conf", "0")
    assert counted("--conf", "0.25") == usual < all_of_them
    assert counted("--conf", "1") == 0


def test_val_takes_data_of_some_of_the_classes(trained: Path, foveate: Foveate) -> None:
    root = yolo(Path("other").resolve())
    write(root / "data.yaml", "names: ['7', '0', '3']")  # the test image has one box, of the first class
    outcome = foveate("val", "other", "--run", trained, "--json")
    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert [one["name"] for one in result["classes"]] == list("0123456789")
    assert [one["truths"] for one in result["classes"]] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert [sum(row) for row in result["confusion"]][:10] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert "changed" not in outcome.err
    write(root / "data.yaml", "names: ['7', '10', 'cat']")
    outcome = foveate("val", Path("other").rename("others"), "--run", trained)
    assert outcome.code == 3
    assert "classes that the model knows: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; received 10, cat" in outcome.err


WRONG = ("--conf 1.5", "--conf -0.1", "--conf nan", "--iou 2", "--iou nan", "--max-det 0", "--batch 0", "--batch -3")


@pytest.mark.parametrize(
    ("verb", "wrong"),
    [(verb, one) for verb in ("val", "predict") for one in WRONG]
    + [("predict", "--every 0"), ("predict", "--top-k 2")],
)
def test_a_wrong_threshold_is_refused_before_anything_is_done(
    verb: str, wrong: str, trained: Path, foveate: Foveate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.experiment.run_folder.load_model", lambda *asked: pytest.fail("the model was loaded"))
    monkeypatch.setattr("foveate.experiment.data.open_study_data", lambda *asked: pytest.fail("data were opened"))
    outcome = foveate(verb, ".", "--run", trained, *wrong.split())
    assert outcome.code == 2
    assert wrong.split()[0].lstrip("-").replace("-", "_") in outcome.err.replace("-", "_")
    assert not Path("runs").exists()


@pytest.mark.parametrize("verb", ["val", "predict"])
def test_the_given_device_is_used(
    verb: str, trained: Path, folder: Path, foveate: Foveate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(trained: Any, device: str) -> None:
        raise UsageError(expected="a test", received=device, do="")

    monkeypatch.setattr("foveate.training.pick_device", lambda name: f"{name}:1")
    monkeypatch.setattr("foveate.experiment.run_folder.load_model", load)
    outcome = foveate(verb, *([folder / "more"] if verb == "predict" else []), "--run", trained, "--device", "cuda")
    assert (outcome.code, "received cuda:1" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    "wrong", [{"conf": float("nan")}, {"conf": 2.0}, {"iou": float("nan")}, {"max_det": 0}], ids=str
)
def test_thresholds_are_checked_whatever_the_command_line_lets_through(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        detect.check(wrong)


def test_predict_finds_boxes_in_pictures_and_in_every_other_frame(
    trained: Path, folder: Path, foveate: Foveate
) -> None:
    outcome = foveate(
        "predict", folder, "--run", trained, "--conf", "0.0001", "--max-det", "3", "--every", "2", "--json"
    )
    record = json.loads(outcome.out)
    assert outcome.code == 3
    files = [(image["file_name"], image["frame"]) for image in record["images"]]
    assert files == [
        ("a.png", None),
        ("b.png", None),
        ("broken.jpg", None),
        ("clip.mp4", 0),
        ("clip.mp4", 2),
        ("more/c.png", None),
    ]
    assert [image["error"] is None for image in record["images"]] == [True, True, False, True, True, True]
    per_image = np.bincount([one["image_id"] for one in record["annotations"]], minlength=7)
    assert per_image.max() == 3
    assert all(
        x >= 0 and y >= 0 and x + w <= 64 and y + h <= 64
        for x, y, w, h in (one["bbox"] for one in record["annotations"])
    )
    made = Path(record["run"])
    assert {path.relative_to(made / "pictures").as_posix() for path in (made / "pictures").rglob("*.jpg")} == {
        *("a.png.jpg", "b.png.jpg", "clip.mp4-000000.jpg", "clip.mp4-000002.jpg", "more/c.png.jpg")
    }
    table = rows(made / "predictions.csv")
    assert len(table) == len(record["annotations"]) + 1
    assert [row["error"] != "" for row in table if row["file"] == "broken.jpg"] == [True]


def test_predict_takes_any_size_of_picture(trained: Path, tmp_path: Path, foveate: Foveate) -> None:
    for k, (width, height) in enumerate(((1, 1), (7, 300), (333, 65))):
        Image.fromarray(np.full((height, width, 3), 40 * k, np.uint8)).save(tmp_path / f"{k}.png")
    outcome = foveate("predict", tmp_path, "--run", trained, "--no-pictures", "--name", "sizes")
    assert outcome.code == 0
    assert not (Path(outcome.last) / "pictures").exists()


def test_a_file_that_is_not_a_video_is_named(trained: Path, tmp_path: Path, foveate: Foveate) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    outcome = foveate("predict", tmp_path, "--run", trained)
    assert outcome.code == 3
    assert "clip.mp4" in outcome.err


def test_a_stopped_run_is_resumed(trained: Path, foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", *SMALL, "--attention", "cbam", "--epochs", "2", "--name", "boxes"]
    from foveate import models

    save, calls = models.save_weights, []

    def breaks_off(*given: object) -> str:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return save(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("foveate.experiment.train_one.save_weights", breaks_off)
    assert foveate(*arguments).code == 130
    other = foveate(*arguments, "--lr", "0.5", "--resume")
    assert other.code == 2
    assert "lr: 0.002 -> 0.5" in other.err
    outcome = foveate(*arguments, "--resume", "--json")
    result, whole = json.loads(outcome.out), json.loads((trained / "results.json").read_text())
    assert outcome.code == 0
    assert (result["sha256"], result["test"]) == (whole["sha256"], whole["test"])
    assert [row["epoch"] for row in rows(Path(result["run"]) / "results.csv")] == ["1", "2"]
    assert foveate(*arguments, "--name", "none-such", "--resume").code == 2


def test_a_resumed_study_of_detectors(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (
        "study",
        *SMALL,
        "--attention",
        "cbam",
        "--no-control",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--jobs",
        "2",
        "--name",
        "s",
    )
    monkeypatch.setattr("foveate.studies.run.LocalEngine", lambda *_: InProcess())
    with monkeypatch.context() as patch:
        patch.setattr("foveate.studies.run.measure_costs", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        assert foveate(*asked).code == 130
    attended, plain = sorted(Path("runs/study/s/trials").glob("*/trial.json"))
    kept, before = plain.stat().st_mtime_ns, json.loads(attended.read_text())
    attended.unlink()  # as after an interruption in this trial
    monkeypatch.setattr("foveate.studies.run.measure_costs", functools.partial(measure_costs, seconds=0))
    outcome = foveate(*asked, "--resume", "--json")
    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert "(1 of 2 trials are already finished)" in outcome.err
    assert plain.stat().st_mtime_ns == kept
    assert json.loads(attended.read_text())["sha256"] == before["sha256"]
    assert result["measure"] == "AP50"
    assert list(result["also"]["mAP"]["arms"]) == [arm["slug"] for arm in result["arms"]]
    assert [arm["label"] for arm in result["arms"]] == ["plain host", "CBAM (identity start)"]
    assert result["arms"][1]["pointing_game"]["spatial"]["area"] > 0
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert "Test AP50 %" in page
    assert "accuracy" not in page.lower()
    assert "Does it look at the digits?" in page
    assert "And by mAP?" in page
    assert re.search(r'<path class="box" d="M[^"]+Z"/>', page)
