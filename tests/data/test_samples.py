"""The images that `foveate sample-data` writes, for the documentation and for users without data."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import open_box_data, open_data
from foveate.data.samples import CLASSES, write_samples
from foveate.data.splits import SPLITS
from foveate.errors import UsageError

PIXELS = "828f3a995f680c27d1829efd5538571cefa553d3da326821daa211bc1d485d93"  # sha256 of all images, on every machine


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_photos_are_a_folder_of_classes(tmp_path: Path) -> None:
    photos, _ = write_samples(tmp_path / "new" / "samples")
    data = open_data(photos)
    assert (data.classes, data.size, [len(getattr(data, split)) for split in SPLITS]) == (
        list(CLASSES),
        32,
        [32, 16, 16],
    )
    assert data.details["layout"] == "train/, val/ and test/ as they are"
    assert all(
        "skipped" not in note and "left out" not in note and "same image" not in note for note in data.details["notes"]
    )


def test_boxes_are_a_folder_of_yolo_and_fit_the_shapes(tmp_path: Path) -> None:
    _, boxes = write_samples(str(tmp_path))
    data = open_box_data(boxes, on_defect="refuse")
    assert (data.classes, data.size, [len(getattr(data, split)) for split in SPLITS]) == (list(CLASSES), 96, [16, 8, 8])
    for split in SPLITS:
        for k, picture in enumerate(getattr(data, split).truths):
            bright = data.image(split, k).min(2) >= 130
            for x1, y1, x2, y2 in np.round(picture.boxes).astype(int):
                inside = bright[y1:y2, x1:x2]
                assert inside.any(0).all()
                assert inside.any(1).all()
                bright[y1:y2, x1:x2] = False
            assert not bright.any()
    labels = np.concatenate([picture.labels for picture in data.test.truths])
    assert set(labels.tolist()) == {0, 1}


def test_they_are_the_same_every_time_and_everywhere(tmp_path: Path) -> None:
    write_samples(tmp_path / "a")
    write_samples(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    digest = hashlib.sha256()
    for path in sorted(tmp_path.glob("a/**/*.png")):
        digest.update(np.asarray(Image.open(path)).tobytes())
    assert digest.hexdigest() == PIXELS
    write_samples(tmp_path / "a")  # the files already have the content that would be written


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "data.yaml").write_text("names: [mine]")
    before = content(tmp_path)
    with pytest.raises(UsageError, match=r"a file of that name with other content"):
        write_samples(tmp_path)
    assert content(tmp_path) == before
