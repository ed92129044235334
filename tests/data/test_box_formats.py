"""A box format is one file: the code that uses the list of formats names none of them."""

from pathlib import Path

import pytest

from data.box_folders import FORMATS as FOLDERS
from data.box_folders import SIZE, picture
from foveate.data.boxes import formats
from foveate.data.boxes.annotations import AnnotatedImage, Annotation, BoxFormat, Reading
from foveate.data.boxes.box_folder import open_boxes
from foveate.errors import DataError


@pytest.mark.parametrize("name", FOLDERS)
def test_each_format_recognises_only_its_own_folders(name: str, tmp_path: Path) -> None:
    root = FOLDERS[name](tmp_path)
    assert [form.name for form in formats.FORMATS if form.recognises(root)] == [name]
    assert formats.find_format(root)[0].name == name
    assert formats.has_boxes(root)


def test_a_file_that_may_belong_to_another_format_counts_where_no_format_is_recognised(tmp_path: Path) -> None:
    root = FOLDERS["COCO"](tmp_path)
    (root / "data.yaml").write_text("names: [cat]")
    assert formats.find_format(root)[0].name == "COCO"
    (tmp_path / "bare").mkdir()
    assert not formats.has_boxes(tmp_path / "bare")
    (tmp_path / "bare" / "data.yaml").write_text("names: [cat]")
    assert formats.find_format(tmp_path / "bare")[0].name == "YOLO"
    assert formats.has_boxes(tmp_path / "bare")


def _read(root: Path, _named: Path | None) -> Reading:
    annotations = (Annotation("line 1", "cat", (10, 10, 20, 20)),)
    return Reading(
        ("cat",),
        {"": [AnnotatedImage(path.name, "boxes.txt", SIZE, annotations) for path in sorted(root.glob("*.png"))]},
    )


def test_a_new_format_is_an_entry_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(4):
        picture(tmp_path / f"{k}.png", 50 * k)
    monkeypatch.setattr(
        formats, "FORMATS", (BoxFormat("mine", "boxes.txt (mine)", lambda root: (root / "boxes.txt").is_file(), _read),)
    )
    with pytest.raises(DataError, match=r"one of: boxes\.txt \(mine\)"):
        open_boxes(tmp_path)
    (tmp_path / "boxes.txt").touch()
    folder = open_boxes(tmp_path)
    assert folder.layout.startswith("mine; one set")
    assert sum(len(part) for part in folder.images.values()) == 4
