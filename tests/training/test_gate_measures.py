from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import foveate
from foveate.data import BoxData, DigitScenesOptions, open_box_data
from foveate.detection.detections import Detections
from foveate.models import YOLOv4Tiny
from foveate.training.tasks import detect

SCENES = DigitScenesOptions(canvas=64, train=10, val=10, test=11)


@pytest.fixture(scope="module")
def data() -> BoxData:
    return open_box_data(None, digits=SCENES)


@pytest.fixture(scope="module")
def model(data: BoxData) -> nn.Module:
    torch.manual_seed(0)
    return YOLOv4Tiny(10, attention="cbam").eval()


def test_the_gates_of_a_detector_are_compared_with_all_boxes(model: nn.Module, data: BoxData) -> None:
    found = detect.pointing_game(model, data)
    assert found is not None
    assert set(found) == {"spatial"}
    pixels = np.zeros((11, 64, 64))
    for image, truth in zip(pixels, data.test.truths, strict=True):
        for left, top, right, bottom in truth.boxes.round().astype(int):
            image[top:bottom, left:right] = 1
    assert found["spatial"]["area"] == pytest.approx(pixels.mean(), abs=0.01)
    assert found["spatial"]["ratio"] == pytest.approx(1, abs=0.05)  # gates are nearly constant before training


def wide(root: Path) -> BoxData:
    """One image in each split, twice as wide as high, which is one whole object."""
    for split in ("train", "val", "test"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        Image.new("RGB", (64, 32), (90, 90, 90)).save(root / "images" / split / f"{split}.png")
        (root / "labels" / split / f"{split}.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [all]\n")
    return open_box_data(root, imgsz=64)


def test_the_border_of_a_letterboxed_picture_counts_for_nothing(tmp_path: Path) -> None:
    found = detect.pointing_game(YOLOv4Tiny(1, attention="cbam").eval(), wide(tmp_path))
    assert found is not None
    assert found["spatial"] == {
        "mass": pytest.approx(1),
        "area": pytest.approx(1),
        "ratio": pytest.approx(1),
        "pointing": pytest.approx(1),
    }


def test_maps_of_a_detector_say_what_was_found(model: nn.Module, data: BoxData) -> None:
    maps = detect.maps(model, data)
    chosen = np.unique(np.linspace(0, 10, 8).astype(int))
    counts = [len(data.test.truths[k].boxes) for k in chosen]
    assert maps["objects"].tolist() == counts
    assert np.isfinite(maps["boxes"]).all(2).sum(1).tolist() == counts
    np.testing.assert_array_equal(maps["boxes"][0][: counts[0]], data.test.truths[0].boxes)
    np.testing.assert_array_equal(maps["images"][1], data.image("test", chosen[1]))
    assert any(key.startswith("gate/") for key in maps)


def test_what_is_found_is_counted_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object in a 64 x 32 image between grey borders 16 pixels high."""
    data = wide(tmp_path)
    hit, miss, border = [0, 16, 64, 48], [0, 20, 8, 28], [0, 1, 9, 9]
    found = Detections([hit, miss, border], [0.9, 0.8, 0.7], [0, 0, 0])
    monkeypatch.setattr(detect, "detect", lambda model, images: [found] * len(images))
    maps = detect.maps(YOLOv4Tiny(1, attention="cbam").eval(), data, cam=True)
    assert [maps[name].tolist() for name in ("objects", "found", "false")] == [[1], [1], [1]]
    assert maps["boxes"].tolist() == [[hit]]
    inside = [array[:, :2] for name, array in maps.items() if name.startswith("numbers/") and name.endswith("spatial")]
    assert inside
    np.testing.assert_allclose(inside, 1, atol=1e-6)  # all of the image, without the border
    np.testing.assert_allclose(maps["cam_numbers/best box"][:, :2], 1, atol=1e-6)
    assert maps["cam/best box"].max() > 0


def test_channel_gates_play_no_pointing_game(data: BoxData) -> None:
    host = YOLOv4Tiny(10).eval()
    assert detect.pointing_game(host, data) is None
    foveate.attach(host, "se", "sites.*", example=(1, 3, 64, 64))
    assert detect.pointing_game(host, data) is None
