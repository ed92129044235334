"""Small folders of images with boxes in each format, to read and to damage in tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (80, 60)  # width and height of every image
# class, xyxy in half-open pixels, of the three images
TRUTH: list[list[tuple[str, tuple[int, int, int, int]]]] = [
    [("cat", (10, 20, 40, 50)), ("ant", (0, 0, 80, 60))],
    [("bee", (5, 6, 25, 36))],
    [("cat", (30, 10, 60, 40))],
]
CLASSES = ("ant", "bee", "cat")
FILE_ORDER = ["cat", "ant", "bee"]  # the class names in the order of the files
# the files that describe the first image, format by format
XML, JSON, TXT = "Annotations/p0.xml", "annotations/instances_train2017.json", "labels/train/p0.txt"


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE[::-1], 3), shade, np.uint8)).save(path)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def thing(name: str, box: tuple[object, ...], more: str = "") -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def annotation(*things: str, size: tuple[int, int] = SIZE) -> str:
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{''.join(things)}</annotation>"


def voc(root: Path) -> Path:
    for k, truth in enumerate(TRUTH):
        picture(root / "JPEGImages" / f"p{k}.jpg", 60 * k)
        things = [thing(name, (box[0] + 1, box[1] + 1, box[2], box[3])) for name, box in truth]
        write(root / "Annotations" / f"p{k}.xml", annotation(*things))
    for k, split in enumerate(("train", "val", "test")):
        write(root / "ImageSets" / "Main" / f"{split}.txt", f"p{k}\n")
    return root


def coco_content(k: int) -> dict[str, list[dict[str, object]]]:
    """Return the annotations of the split that holds image `k`; its ids have gaps and no order."""
    ids = {name: 7 * (2 - number) + 3 for number, name in enumerate(FILE_ORDER)}
    return {
        "images": [{"id": 100 + k, "file_name": f"p{k}.png", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {
                "id": j,
                "image_id": 100 + k,
                "category_id": ids[name],
                "bbox": [x, y, right - x, bottom - y],
                "iscrowd": 0,
            }
            for j, (name, (x, y, right, bottom)) in enumerate(TRUTH[k])
        ],
    }


def coco(root: Path) -> Path:
    for k, split in enumerate(("train", "val", "test")):
        picture(root / f"{split}2017" / f"p{k}.png", 60 * k)
        write(root / "annotations" / f"instances_{split}2017.json", json.dumps(coco_content(k)))
    return root


def yolo_line(name: str, box: tuple[int, int, int, int]) -> str:
    width, height = SIZE
    left, top, right, bottom = box
    sides = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
    return f"{FILE_ORDER.index(name)} " + " ".join(f"{side:.6f}" for side in sides)


def yolo(root: Path) -> Path:
    for k, split in enumerate(("train", "val", "test")):
        picture(root / "images" / split / f"p{k}.png", 60 * k)
        write(root / "labels" / split / f"p{k}.txt", "\n".join(yolo_line(*mark) for mark in TRUTH[k]))
    write(root / "data.yaml", f"train: ../elsewhere\nnc: 3\nnames: [{', '.join(FILE_ORDER)}]\n")
    return root


def yolo_named(root: Path) -> Path:
    """Write the images of `yolo` into folders whose splits only data.yaml gives, two of them by lists."""
    for k in range(3):
        picture(root / "images" / f"part{k}" / f"p{k}.png", 60 * k)
        write(root / "labels" / f"part{k}" / f"p{k}.txt", "\n".join(yolo_line(*mark) for mark in TRUTH[k]))
    for more in ("p3", "p4"):  # so that train can be split
        picture(root / "images" / "part0" / f"{more}.png", 9)
        write(root / "labels" / "part0" / f"{more}.txt", "0 .5 .5 .2 .2")
    write(root / "train.txt", "./images/part0/p0.png\n./images/part0/p3.png\nimages/part0/p4.png\n")
    write(root / "test.txt", "images/part2/p2.png\n")
    write(
        root / "data.yaml",
        f"path: .\ntrain: train.txt\nval: images/part1\ntest: [test.txt]\nnames: [{', '.join(FILE_ORDER)}]\n",
    )
    return root


FORMATS = {"VOC": voc, "COCO": coco, "YOLO": yolo}
