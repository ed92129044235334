"""From a COCO file to COCO's numbers: crowds, ignored objects and areas of outlines count as in pycocotools."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.box_folders import coco, coco_content, write
from detection.by_pycocotools import COCO, Evaluation
from foveate.data.boxes.box_data import open_box_data
from foveate.data.boxes.box_folder import open_boxes
from foveate.detection.detections import Detections
from foveate.training.tasks.detect import _measure

SIDE, CLASSES, COUNT = 320, ("ant", "bee", "cat"), 12
IDS = {"cat": 3, "bee": 40, "ant": 7}
Marks = list[dict[str, Any]]


def marks(rng: np.random.Generator) -> Marks:
    """Return random objects, some of them crowds or ignored, with areas of outlines that differ from their boxes."""
    found: Marks = []
    for image in range(COUNT):
        for _ in range(rng.integers(0, 8)):
            x, y, width, height = (int(value) for value in (*rng.integers(0, 200, 2), *rng.integers(8, 120, 2)))
            flags = {"iscrowd": int(rng.random() < 0.2), "ignore": int(rng.random() < 0.2)}
            box = {"bbox": [x, y, width, height], "area": float(rng.choice([0, 300.5, 4000, 12_000]))}
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": image,
                    "category_id": int(rng.choice(list(IDS.values()))),
                    **box,
                    **flags,
                }
            )
    return found


def detections(rng: np.random.Generator, truth: Marks) -> Marks:
    """Return detections of a fair detector: most objects, slightly displaced, and some false ones."""
    found: Marks = []
    for one in truth:
        x, y, width, height = (float(value) for value in one["bbox"])
        for _ in range(rng.integers(0, 3)):
            shift = rng.integers(-6, 7, 2)
            box = [x + max(-x, float(shift[0])), y + max(-y, float(shift[1])), width, height]
            kind = one["category_id"] if rng.random() < 0.8 else int(rng.choice(list(IDS.values())))
            found.append({"image_id": one["image_id"], "category_id": kind, "bbox": box, "score": float(rng.random())})
    return found


def folder(root: Path, truth: Marks) -> Path:
    """Write the usual folder with a test split of these objects."""
    coco(root)
    for k in range(COUNT):
        Image.fromarray(np.full((SIDE, SIDE, 3), k, np.uint8)).save(root / "test2017" / f"q{k:02}.png")
    images = [{"id": k, "file_name": f"q{k:02}.png", "width": SIDE, "height": SIDE} for k in range(COUNT)]
    categories = [{"id": number, "name": name} for name, number in IDS.items()]
    write(
        root / "annotations" / "instances_test2017.json",
        json.dumps({"images": images, "categories": categories, "annotations": truth}),
    )
    return root


def by_pycocotools(root: Path, found: Marks) -> list[float]:
    """Return pycocotools' numbers for the same file, with `ignore` marked as here, since it does not read that flag."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_test2017.json"))
        for one in truth.dataset["annotations"]:
            one["difficult"] = one["ignore"]
        evaluation = Evaluation(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_a_file_gives_the_numbers_that_pycocotools_gives(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    truth = marks(rng)
    found = detections(rng, truth)
    data = open_box_data(folder(tmp_path, truth), imgsz=SIDE)
    assert [picture.path for picture in data.test.truths] == [f"test2017/q{k:02}.png" for k in range(COUNT)]
    each = [[one for one in found if one["image_id"] == k] for k in range(COUNT)]
    labels = {number: CLASSES.index(name) for name, number in IDS.items()}
    seen = [
        Detections(
            [[x, y, x + width, y + height] for x, y, width, height in (one["bbox"] for one in part)],
            [one["score"] for one in part],
            [labels[one["category_id"]] for one in part],
        )
        for part in each
    ]
    numbers = _measure(data.test, seen, len(CLASSES), 0.25)["coco"]
    wanted = by_pycocotools(tmp_path, found)
    assert [-1 if value is None else value for value in numbers.values()] == pytest.approx(wanted, abs=1e-12)
    assert numbers["ap_small"] != numbers["ap_large"]


@pytest.mark.parametrize(
    ("area", "read"),
    [
        (123.5, 123.5),
        (0, 0),
        (None, 900),
        (-4, 900),
        (float("nan"), 900),
        (float("inf"), 900),
        ("9", 900),
        (True, 900),
        (10**400, 900),
    ],
    ids=lambda value: str(value)[:9],
)
def test_an_invalid_area_is_replaced_by_that_of_the_box(area: Any, read: float, tmp_path: Path) -> None:
    content = coco_content(0)
    content["annotations"][0]["area"], content["annotations"][1]["area"] = area, 77
    write(coco(tmp_path) / "annotations" / "instances_train2017.json", json.dumps(content))
    (found,) = open_boxes(tmp_path, on_defect="refuse").images["train"]
    np.testing.assert_array_equal(found.areas, [read, 77])


def test_an_area_belongs_to_the_content(tmp_path: Path) -> None:
    before = open_boxes(coco(tmp_path)).fingerprint()
    content = coco_content(0)
    content["annotations"][0]["area"] = 123.5
    write(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    assert open_boxes(tmp_path).fingerprint() != before
