"""What `predict` writes for an untrained detector, for all kinds of images."""

import contextlib
import csv
import io
import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import coco
from torch import nn

from data.videos import clip
from foveate.cli.predict import find
from foveate.detection.detections import Detections
from foveate.errors import DataError, UsageError
from foveate.models import YOLOv4Tiny
from foveate.models.detectors import detect
from foveate.training.box_predictions import BoxOptions, predict_boxes
from foveate.training.tasks.detect import check

COCO: Any = coco.COCO
SIDE, CLASSES = 64, ["bee", "ant"]
ALL = BoxOptions(conf=0.01, max_det=5)


@pytest.fixture
def model() -> YOLOv4Tiny:
    """An untrained network with norms as after a training, which detects boxes everywhere."""
    torch.manual_seed(0)
    model = YOLOv4Tiny(len(CLASSES), attention="cbam").eval()
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.running_mean, norm.running_var = torch.randn_like(norm.bias) / 10, torch.rand_like(norm.bias) + 0.5
    for head in (model.coarse_head, model.fine_head):
        nn.init.normal_(head.weight, std=0.15)
    return model


def predicted(model: YOLOv4Tiny, root: Path, *names: str | Path, looking: BoxOptions = ALL) -> dict[str, Any]:
    described = {"classes": CLASSES, "size": SIDE}
    return predict_boxes(model, described, "model", root, list(map(str, names)), looking, root / "made").record


def picture(path: Path, width: int, height: int) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def rows(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((root / "made" / "predictions.csv").read_text(encoding="utf-8").splitlines()))


def test_pictures_of_any_shape_are_drawn(model: YOLOv4Tiny, tmp_path: Path) -> None:
    """A JPEG has at most 65,500 pixels per side."""
    sizes = {
        "dot.png": (1, 1),
        "tall.png": (1, 65_535),
        "wide.png": (65_535, 1),
        "just.png": (65_500, 1),
        "usual.jpg": (90, 60),
    }
    for name, size in sizes.items():
        picture(tmp_path / name, *size)
    record = predicted(model, tmp_path, *sizes)
    drawn = {path.name: path for path in (tmp_path / "made" / "pictures").iterdir()}
    assert set(drawn) == {"dot.png.jpg", "tall.png.png", "wide.png.png", "just.png.jpg", "usual.jpg.jpg"}
    for name, path in drawn.items():
        with Image.open(path) as image:
            assert image.size == sizes[name.rpartition(".")[0]]
    assert [image["error"] for image in record["images"]] == [None] * 5
    assert (tmp_path / "made" / "predictions.json").is_file()


def test_names_of_the_greatest_length(model: YOLOv4Tiny, tmp_path: Path) -> None:
    long, odd = "a" * 251 + ".png", os.fsdecode(b"caf\xe9\n.png")
    for name in (long, odd):
        picture(tmp_path / name, 40, 30)
    record = predicted(model, tmp_path, long, odd)
    assert [image["file_name"] for image in record["images"]] == [long, odd]
    assert len(list((tmp_path / "made" / "pictures").iterdir())) == 2
    assert {row["file"] for row in rows(tmp_path)} == {long, r"caf\udce9\n.png"}


def test_the_json_is_in_cocos_format(model: YOLOv4Tiny, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip(2))
    (tmp_path / "no.png").write_text("text")
    record = predicted(model, tmp_path, picture(tmp_path / "one.png", 90, 60).name, "clip.mp4", "no.png")
    with contextlib.redirect_stdout(io.StringIO()):
        read = COCO(str(tmp_path / "made" / "predictions.json"))
        again = read.loadRes(record["annotations"])
    assert [
        (one["file_name"], one["frame"], one["width"], one["height"]) for one in read.loadImgs(read.getImgIds())
    ] == [*(("one.png", None, 90, 60), ("clip.mp4", 0, 64, 32), ("clip.mp4", 1, 64, 32), ("no.png", None, None, None))]
    assert {one["name"] for one in read.loadCats(read.getCatIds())} == set(CLASSES)
    found = read.loadAnns(read.getAnnIds())
    assert len(found) == len(record["annotations"]) > 9
    assert sorted(one["id"] for one in found) == list(range(1, len(found) + 1))
    assert all(one["iscrowd"] == 0 and one["area"] == one["bbox"][2] * one["bbox"][3] > 0 for one in found)
    assert sorted(read.getAnnIds(areaRng=[100, 1e9])) == [one["id"] for one in found if one["area"] > 100]
    assert again.loadAnns(again.getAnnIds())[3]["bbox"] == found[3]["bbox"]


def test_norms_are_folded_into_the_convolutions_and_nothing_else_changes(
    model: YOLOv4Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nn.Module] = []

    def spied(network: nn.Module, images: torch.Tensor, **thresholds: Any) -> list[Detections]:
        seen.append(network)
        (fused,), (plain,) = (detect(one, images, **thresholds) for one in (network, model))
        np.testing.assert_allclose(fused.boxes, plain.boxes, atol=1e-3)
        np.testing.assert_allclose(fused.scores, plain.scores, rtol=1e-4)
        assert fused.labels.tolist() == plain.labels.tolist()
        assert len(fused.labels) == 5
        return [fused]

    monkeypatch.setattr("foveate.training.box_predictions.detect", spied)
    predicted(model, tmp_path, picture(tmp_path / "one.png", 90, 60).name)
    (network,) = seen
    assert not any(isinstance(module, nn.BatchNorm2d) for module in cast(YOLOv4Tiny, network).backbone[0].modules())


def test_boxes_outside_the_picture_are_left_out(
    model: YOLOv4Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the network's 64 input rows, the image is 64 x 16 pixels from row 24 on, at 0.8 of its size."""
    boxes = [[0, 0, 60, 20], [0, 20, 64, 32], [8, 32, 16, 40], [8, 40, 16, 50]]
    found = [Detections(boxes, [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1])]
    monkeypatch.setattr("foveate.training.box_predictions.detect", lambda *given, **more: found)
    record = predicted(model, tmp_path, picture(tmp_path / "one.png", 80, 20).name)
    assert [one["bbox"] for one in record["annotations"]] == [[0, 0, 80, 10], [10, 10, 10, 10]]
    assert [(row["class"], row["confidence"]) for row in rows(tmp_path)] == [("ant", "0.8"), ("bee", "0.7")]


def test_each_unreadable_file_has_its_row(model: YOLOv4Tiny, tmp_path: Path) -> None:
    whole = clip(3, movflags="empty_moov")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(whole[:200])
    (tmp_path / "still.mp4").write_bytes(whole[: whole.index(b"moof") - 4])
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.png")
    names = ["empty.mp4", "cut.mp4", "still.mp4", "pipe.mp4", "pipe.png", picture(tmp_path / "good.png", 30, 40).name]
    record = predicted(model, tmp_path, *names)
    assert [image["error"] is None for image in record["images"]] == [False] * 5 + [True]
    reasons = {row["file"]: row["error"] for row in rows(tmp_path) if row["error"]}
    assert list(reasons) == names[:-1]
    assert [reason.partition("received ")[2] for reason in reasons.values()] == [
        *(
            "an empty file",
            reasons["cut.mp4"].partition("received ")[2],
            "no frame",
            "a pipe or a device",
            "a pipe or a device",
        )
    ]


WRONG: list[dict[str, Any]] = [
    *({"conf": -0.1}, {"conf": 1.5}, {"conf": float("nan")}, {"iou": -0.1}, {"iou": 1.1}, {"iou": float("nan")}),
    *({"max_det": 0}, {"max_det": -1}, {"batch": 0}, {"batch": -1}, {"every": 0}, {"every": -2}),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_options_that_look_at_nothing_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=name):
        check(wrong)
    check({"conf": 0, "iou": 1, "max_det": 1, "batch": 1, "every": 1})


def test_what_a_source_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a file or a pattern; an existing name with special characters is that file."""
    for name in ("a/1.jpg", "a/2.PNG", "b/3.jpg", "b/notes.txt", "x[1].jpg", "0.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    kinds = frozenset({".jpg", ".png"})
    monkeypatch.chdir(tmp_path)
    assert find("a", kinds) == (Path("a"), ["1.jpg", "2.PNG"])
    assert find("x[1].jpg", kinds) == (Path(), ["x[1].jpg"])
    assert find("a/*", kinds) == (Path("a"), ["1.jpg", "2.PNG"])
    assert find(f"{tmp_path}/**/*.jpg", kinds) == (tmp_path, ["a/1.jpg", "b/3.jpg", "x[1].jpg"])
    assert find("?/*.jpg", kinds) == (Path(), ["a/1.jpg", "b/3.jpg"])
    for source, said in {
        "0": "the number of a camera\nDo: record it to a file first",
        "rtsp://camera/1": "rtsp://camera/1, the address of a stream",
        "http://host/a.jpg": "the address of a stream",
        "c": "no such file: c",
        "b/*.txt": "1 file of other kinds\nDo: check the pattern",
        "*.gif": "no file\nDo",
    }.items():
        with pytest.raises(DataError, match=re.escape(said)):
            find(source, kinds)
