"""VOC as people have it: files that name their image, and two years side by side."""

from pathlib import Path

import pytest

from data.box_folders import annotation, voc, write
from foveate.data.boxes.box_folder import open_boxes
from foveate.data.splits import SPLITS
from foveate.errors import DataError


@pytest.mark.parametrize("name", ["p{}.jpg", "P{}.JPG", r"C:\photos\p{}.jpg", "p{}"])
def test_a_voc_file_belongs_to_the_image_that_it_names(name: str, tmp_path: Path) -> None:
    voc(tmp_path)
    for k in range(3):
        file = tmp_path / "Annotations" / f"p{k}.xml"
        text = file.read_text().replace("<annotation>", f"<annotation><filename>{name.format(k)}</filename>")
        file.rename(file.with_stem(f"annotation-{k}")).write_text(text)
    data = open_boxes(tmp_path)
    assert [picture.path for split in SPLITS for picture in data.images[split]] == [
        f"JPEGImages/p{k}.jpg" for k in range(3)
    ]


def test_an_image_with_a_file_of_its_name_is_not_given_to_another_file(tmp_path: Path) -> None:
    voc(tmp_path)
    write(tmp_path / "Annotations" / "other.xml", annotation().replace("<size>", "<filename>p0.jpg</filename><size>"))
    with pytest.raises(DataError, match=r"other.xml: has no image of its name or its <filename>"):
        open_boxes(tmp_path, on_defect="refuse")


@pytest.mark.parametrize("side", ["9" * 5000, "1e99", "nan", "-80", "0.5", "80.5", "x"])
def test_a_size_that_cannot_be_one_counts_as_not_given(side: str, tmp_path: Path) -> None:
    """Python makes no integer of more than 4,300 digits."""
    file = voc(tmp_path) / "Annotations" / "p0.xml"
    file.write_text(file.read_text().replace("<width>80<", f"<width>{side}<"))
    assert [len(open_boxes(tmp_path, on_defect="refuse").images[split]) for split in SPLITS] == [1, 1, 1]


def test_voc_2007_and_2012_side_by_side_are_joined(tmp_path: Path) -> None:
    for year in ("2007", "2012"):
        voc(tmp_path / f"VOC{year}")
    (tmp_path / "VOC2012" / "ImageSets" / "Main" / "test.txt").unlink()
    data = open_boxes(tmp_path)
    found = {split: sorted(picture.path for picture in data.images[split]) for split in SPLITS}
    assert found == {
        "train": ["VOC2007/JPEGImages/p0.jpg", "VOC2012/JPEGImages/p0.jpg"],
        "val": ["VOC2007/JPEGImages/p1.jpg", "VOC2012/JPEGImages/p1.jpg"],
        "test": ["VOC2007/JPEGImages/p2.jpg"],
    }
    assert "images that are in no split, left out: 1" in data.notes
