"""Layouts of people's tools: each gives the boxes at the right place of the right image with the right class."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.box_folders import annotation, thing, write
from foveate.data.boxes.box_folder import BoxFolder, open_boxes
from foveate.data.images.decode import read_image
from foveate.data.splits import SPLITS
from foveate.errors import DataError

SIZE = (64, 48)
CLASSES = ("red", "green")  # not in the order of the alphabet, as in most lists
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0)}
ALL = range(6)
Boxes = list[tuple[str, tuple[int, int, int, int]]]


def scene(path: Path, k: int) -> Boxes:
    """Draw image `k`, one or two bright rectangles on noise; return their classes and boxes."""
    rng = np.random.default_rng(k)
    pixels = rng.integers(0, 60, (SIZE[1], SIZE[0], 3), np.uint8)
    boxes: Boxes = []
    for j in range(1 + k % 2):
        kind, width, height = CLASSES[(k + j) % 2], int(rng.integers(8, 20)), int(rng.integers(8, 20))
        left, top = int(rng.integers(1, 11)) + 32 * j, int(rng.integers(1, 27))
        pixels[top : top + height, left : left + width] = COLOURS[kind]
        boxes.append((kind, (left, top, left + width, top + height)))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return boxes


def txt(path: Path, boxes: Boxes, more: str = "") -> None:
    lines = []
    for kind, (left, top, right, bottom) in boxes:
        sides = (left + right) / 2 / SIZE[0], (top + bottom) / 2 / SIZE[1], (right - left) / SIZE[0]
        lines.append(f"{CLASSES.index(kind)} {' '.join(map(str, sides))} {(bottom - top) / SIZE[1]}{more}")
    write(path, "\n".join(lines))


def xml(path: Path, boxes: Boxes) -> None:
    things = [thing(kind, (left + 1, top + 1, right, bottom)) for kind, (left, top, right, bottom) in boxes]
    write(path, annotation(*things, size=SIZE))


def yolo(root: Path, images: str, labels: str, which: Iterable[int] = ALL, suffix: str = "png") -> None:
    for k in which:
        txt(root / labels / f"p{k}.txt", scene(root / images / f"p{k}.{suffix}", k))


def voc(root: Path, images: str, labels: str, which: Iterable[int] = ALL, suffix: str = "png") -> None:
    for k in which:
        xml(root / labels / f"p{k}.xml", scene(root / images / f"p{k}.{suffix}", k))


def coco(
    root: Path,
    images: str,
    file: str,
    which: Iterable[int] = ALL,
    name: Callable[[str], str] = str,
    identity: Callable[[int], object] = int,
) -> None:
    entries, annotations = [], []
    for k in which:
        boxes = scene(root / images / f"p{k}.png", k)
        entries.append({"id": identity(k), "file_name": name(f"p{k}.png"), "width": SIZE[0], "height": SIZE[1]})
        for kind, (left, top, right, bottom) in boxes:
            bbox = [left, top, right - left, bottom - top]
            kind_id = identity(CLASSES.index(kind))
            annotations.append({"id": len(annotations), "image_id": identity(k), "category_id": kind_id, "bbox": bbox})
    categories = [{"id": identity(k), "name": kind} for k, kind in enumerate(CLASSES)]
    write(root / file, json.dumps({"images": entries, "annotations": annotations, "categories": categories}))


def right(folder: BoxFolder) -> dict[str, int]:
    """Check that every box holds its object and nothing else; return the number of images of each split."""
    for picture in (one for split in SPLITS for one in folder.images[split]):
        pixels = read_image(folder.root / picture.path).astype(int)
        assert len(picture.boxes) == 1 + int(Path(picture.path).stem[-1]) % 2, picture.path
        for label, (left, top, right_, bottom) in zip(picture.labels, picture.boxes.round().astype(int), strict=True):
            of_class = np.abs(pixels - COLOURS[folder.classes[label]]).max(axis=2) < 100
            assert of_class[top:bottom, left:right_].mean() > 0.9, picture.path
            assert of_class.sum() * 0.9 < (bottom - top) * (right_ - left), picture.path
    return {split: len(folder.images[split]) for split in SPLITS}


def three(make: Callable[..., None], root: Path, images: str, labels: str, **more: object) -> None:
    """Lay out the images 0 to 3, 4 and 5 as three splits; {} stands for the name of the split."""
    for split, which in (("train", range(4)), ("valid", [4]), ("test", [5])):
        make(root, images.format(split), labels.format(split), which, **more)


def darknet(root: Path, start: str = "data/", names: str = "obj.names") -> None:
    yolo(root, "obj_train_data", "obj_train_data")
    write(root / "obj.data", f"classes = 2\ntrain = {start}train.txt\nnames = {start}{names}\nbackup = backup/\n")
    write(root / names, "red\ngreen\n")
    write(root / "train.txt", "".join(f"{start}obj_train_data/p{k}.png\n" for k in ALL))


def named(root: Path, *files: str) -> None:
    for file in files:
        write(root / file, "red\ngreen\n")


def linked(root: Path, folder: str) -> None:
    (root.parent / "store").mkdir()
    (root / folder).rename(root.parent / "store" / "there")
    (root / folder).symlink_to(root.parent / "store" / "there")


YAML = "names: [red, green]\n"
SPLIT = {"train": 4, "val": 1, "test": 1}
DRAWN = {"train": 4, "val": 1, "test": 1}
LAYOUTS: dict[str, Callable[[Path], object]] = {
    "voc: images beside annotations": lambda root: voc(root, "images", "annotations"),
    "voc: Images beside Annotations": lambda root: voc(root, "Images", "ANNOTATIONS"),
    "voc: folders in train": lambda root: three(voc, root, "{}/images", "{}/annotations"),
    "voc: splits inside": lambda root: three(voc, root, "images/{}", "annotations/{}"),
    "voc: beside": lambda root: voc(root, "", ""),
    "voc: beside, in splits": lambda root: three(voc, root, "{}", "{}"),
    "voc: beside, capitals": lambda root: (voc(root, "", "", suffix="JPG"), (root / "p0.xml").rename(root / "P0.XML")),
    "voc: one level down": lambda root: voc(root, "set/JPEGImages", "set/Annotations"),
    "voc: VOCdevkit": lambda root: voc(root, "VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/Annotations"),
    "voc: linked images": lambda root: (voc(root, "JPEGImages", "Annotations"), linked(root, "JPEGImages")),
    "voc: linked annotations": lambda root: (voc(root, "images", "annotations"), linked(root, "annotations")),
    "coco: Label Studio": lambda root: coco(root, "images", "result.json", name=lambda n: f"images/{n}"),
    "coco: Windows": lambda root: coco(root, "images", "result.json", name=lambda n: f"images\\{n}"),
    "coco: of an upload": lambda root: coco(root, "images", "x.json", name=lambda n: f"..\\..\\media\\upload\\4\\{n}"),
    "coco: absolute": lambda root: coco(root, "images", "annotations.json", name=lambda n: f"/home/me/images/{n}"),
    "coco: capitals": lambda root: coco(root, "Images", "annotations.json", name=lambda n: f"images/{n.upper()}"),
    "coco: ids as text": lambda root: coco(root, "images", "result.json", identity=str),
    "coco: ids as words": lambda root: coco(root, "images", "result.json", identity=lambda k: f"a{k}"),
    "coco: ids as floats": lambda root: coco(root, "images", "result.json", identity=float),
    "coco: any name": lambda root: coco(root, "pictures", "labels/my export.json"),
    "coco: a file in each split": lambda root: three(coco, root, "{}/images", "{}/labels.json"),
    "coco: splits in names": lambda root: three(coco, root, "{}", "my_{}.json"),
    "coco: one level down": lambda root: three(coco, root, "set/{}", "set/annotations/instances_{}.json"),
    "coco: linked": lambda root: (coco(root, "images", "result.json"), linked(root, "images")),
    "yolo: dataset.yaml": lambda root: (yolo(root, "images", "labels"), write(root / "dataset.yaml", YAML)),
    "yolo: config.yaml": lambda root: (yolo(root, "images", "labels"), write(root / "config.yaml", YAML)),
    "yolo: another yaml": lambda root: (
        yolo(root, "images", "labels"),
        write(root / "coco8.yaml", YAML),
        write(root / "hyp.yaml", "lr: 1\n"),
    ),
    "yolo: Images and Labels": lambda root: (yolo(root, "Images", "Labels"), write(root / "data.yaml", YAML)),
    "yolo: capitals": lambda root: (
        three(yolo, root, "IMAGES/{}", "LABELS/{}", suffix="PNG"),
        write(root / "Data.YAML", YAML),
    ),
    "yolo: paths in other capitals": lambda root: (
        yolo(root, "images/Part", "labels/Part"),
        write(root / "data.yaml", f"train: Images/part\n{YAML}"),
    ),
    "yolo: linked images": lambda root: (
        yolo(root, "images", "labels"),
        named(root, "classes.txt"),
        linked(root, "images"),
    ),
    "yolo: linked labels": lambda root: (
        yolo(root, "images", "labels"),
        named(root, "classes.txt"),
        linked(root, "labels"),
    ),
    "yolo: linked splits": lambda root: (
        three(yolo, root, "images/{}", "labels/{}"),
        named(root, "classes.txt"),
        linked(root, "images/train"),
    ),
    "yolo: one level down": lambda root: (
        three(yolo, root, "set/{}/images", "set/{}/labels"),
        write(root / "set" / "data.yaml", YAML),
    ),
    "yolo: LabelImg": lambda root: (yolo(root, "", ""), named(root, "classes.txt")),
    "yolo: LabelImg in a folder": lambda root: (yolo(root, "pics", "pics"), named(root, "pics/classes.txt")),
    "darknet: CVAT": darknet,
    "darknet: CVAT on Windows": lambda root: darknet(root, "data\\"),
    "darknet: Roboflow": lambda root: (
        three(yolo, root, "{}", "{}"),
        named(root, *(f"{split}/_darknet.labels" for split in ("train", "valid", "test"))),
    ),
    "darknet: lists of their own": lambda root: (
        darknet(root),
        (root / "train.txt").write_text("".join(f"data/obj_train_data/p{k}.png\n" for k in range(4))),
        write(root / "valid.txt", "data/obj_train_data/p4.png\n"),
        write(root / "test.txt", "data/obj_train_data/p5.png\n"),
        write(
            root / "obj.data", "train=data/train.txt\nvalid=data/valid.txt\ntest=data/test.txt\nnames=data/obj.names"
        ),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.reliability(33)
def test_every_box_lies_on_its_object(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path / "data")
    folder = open_boxes(tmp_path / "data", on_defect="refuse")
    assert right(folder) == {"train": 4, "val": 1, "test": 1}
    if "split" in name or "Roboflow" in name or "their own" in name:
        assert folder.layout.endswith("train, val and test as they are")


@pytest.mark.reliability(33)
def test_another_picture_of_the_name_is_not_taken(tmp_path: Path) -> None:
    """An image that train lists and lacks is missing, even where test has one of that name."""
    three(coco, tmp_path, "{}", "{}/_annotations.coco.json")
    (tmp_path / "test" / "p5.png").rename(tmp_path / "test" / "p9.png")
    coco(tmp_path, "test", "test/_annotations.coco.json", [5])
    (tmp_path / "train" / "p3.png").unlink()
    scene(tmp_path / "test" / "p3.png", 3)
    folder = open_boxes(tmp_path)
    assert {one.path for one in folder.images["train"]} == {f"train/p{k}.png" for k in range(3)}
    assert any("the image p3.png is missing" in note for note in folder.notes)


def test_two_sets_are_named_by_their_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        three(yolo, tmp_path / name, "{}/images", "{}/labels")
        write(tmp_path / name / "data.yaml", YAML)
    with pytest.raises(DataError) as caught:
        open_boxes(tmp_path)
    assert f"{tmp_path}/one or {tmp_path}/two" in caught.value.do


def test_a_file_is_named_directly(tmp_path: Path) -> None:
    yolo(tmp_path, "images", "labels")
    write(tmp_path / "a.yaml", YAML)
    write(tmp_path / "b.yaml", "names: [cat, dog]\n")
    assert set(open_boxes(tmp_path / "a.yaml").classes) == {"red", "green"}
    assert set(open_boxes(tmp_path / "b.yaml").classes) == {"cat", "dog"}
    darknet(tmp_path / "darknet")
    assert sum(right(open_boxes(tmp_path / "darknet" / "obj.data")).values()) == 6
    coco(tmp_path / "coco", "images", "a.json")
    coco(tmp_path / "coco", "images", "b.json", range(4))
    assert sum(right(open_boxes(tmp_path / "coco" / "b.json")).values()) == 4
