"""`foveate export`: a file, its record, and the exit code of a file that computes something else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Foveate
from foveate.exporting.formats import onnx

MODEL = ("export", "resnet8", "--attention", "cbam", "--classes", 4, "--imgsz", 32)


@pytest.fixture
def photos(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")


@pytest.mark.usefixtures("photos")
def test_a_model_by_name_on_a_folder_of_images(foveate: Foveate, tmp_path: Path) -> None:
    done = foveate(*MODEL, "--images", "photos", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert Path(record["file"]) == tmp_path / "runs" / "export" / "resnet8" / "resnet8.onnx"
    assert Path(record["file"]).is_file()
    assert [check["count"] for check in record["checks"] if check["what"] == "images"] == [3]
    assert record["size"] == 32
    assert "No --weights" in done.err


@pytest.mark.usefixtures("photos")
def test_attention_that_is_constant_over_the_images_is_folded(foveate: Foveate) -> None:
    done = foveate(*MODEL, "--images", "photos", "--fold", "--static", "--format", "torch", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    folded = record["folded"]  # untrained, attention multiplies by 1
    assert (len(folded["sites"]), folded["kept"], folded["images"]) == (3, {}, 3)
    assert folded["parameters"] > 0
    assert folded["difference"] < 1e-6
    assert "aten.sigmoid.default" not in record["operators"]
    without = foveate(*MODEL, "--fold")
    assert (without.code, "images to see which attention is constant" in without.err) == (2, True)


def test_a_miss_has_exit_code_5(foveate: Foveate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = onnx.open

    def wrong(path: Path, threads: int | None = None) -> Any:
        good = run(path, threads)
        return lambda inputs: [output * 1.01 for output in good(inputs)]

    monkeypatch.setattr(onnx, "open", wrong)
    done = foveate(*MODEL, "--static")
    assert (done.code, done.out) == (5, "")
    assert "within 0.0001" in done.err
    folder = tmp_path / "runs" / "export" / "resnet8"
    assert sorted(path.name for path in folder.iterdir()) == ["resnet8.onnx.json", "resnet8.onnx.unverified"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "tflite"), "litert"),
        (("--target", "coreml"), "a format that coreml reads"),
        (("--boxes", "nms"), "for a detector"),
        (("--images", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_work_is_refused(foveate: Foveate, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = foveate(*MODEL, *arguments)
    assert done.code in (2, 3)
    assert told in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_in_int8_with_its_accuracy_before_and_after(foveate: Foveate, tmp_path: Path) -> None:
    small = ("--train-count", 32, "--val-count", 16, "--test-count", 16, "--epochs", 1, "--batch", 8)
    assert foveate("train", "--attention", "se", *small, "--name", "digits").code == 0
    done = foveate("export", "runs/train/digits", "--int8", "--static", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["classes"] == [str(digit) for digit in range(10)]
    int8 = record["int8"]
    assert int8["images"] == 16
    results = json.loads((tmp_path / "runs/train/digits/results.json").read_text())
    assert int8["before"] == pytest.approx(results["test_score"])
    assert abs(int8["after"] - int8["before"]) <= 3 / 16
    assert record["bytes"] < 0.6 * int8["bytes_before"]


@pytest.mark.slow
def test_a_detector_in_int8_with_its_ap50_before_and_after(foveate: Foveate, tmp_path: Path) -> None:
    counts = ("--train-count", 96, "--val-count", 16, "--test-count", 32, "--canvas", 64)
    options = ("--model", "yolov4-tiny", "--epochs", 6, "--batch", 8, "--attention", "cbam", "--name", "boxes")
    assert foveate("train", "--task", "detect", *counts, *options).code == 0
    done = foveate("export", "runs/train/boxes", "--int8", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["boxes"] == "nms"
    int8 = record["int8"]
    results = json.loads((tmp_path / "runs/train/boxes/results.json").read_text())
    assert 0 < results["test_score"] == pytest.approx(int8["before"], abs=1e-3)
    assert abs(int8["after"] - int8["before"]) < 0.1
    assert int8["in_float"]
