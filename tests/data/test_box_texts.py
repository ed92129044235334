"""Text files of boxes in the encodings that people's tools write: read rightly, or refused with the cause."""

from pathlib import Path

import pytest

from data.box_folders import FORMATS, TXT, XML, annotation, thing, write
from foveate.data.boxes.box_folder import open_boxes
from foveate.errors import DataError

NAMES = ("口罩", "安全帽", "mésange")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("file", ["classes.txt", "data.yaml"])
def test_names_keep_their_characters(file: str, encoding: str, tmp_path: Path) -> None:
    root = FORMATS["YOLO"](tmp_path)
    (root / "data.yaml").unlink()
    text = f"names: [{', '.join(NAMES)}]\r\n" if file == "data.yaml" else "\r\n".join(NAMES)
    write(root / file, text.encode(encoding))
    write(root / TXT, (root / TXT).read_text().encode(encoding))
    folder = open_boxes(root, on_defect="refuse")
    assert folder.classes == tuple(sorted(NAMES))
    assert [folder.classes[label] for label in folder.images["train"][0].labels] == [NAMES[0], NAMES[1]]


@pytest.mark.parametrize("file", ["classes.txt", "data.yaml", TXT])
def test_another_encoding_is_refused(file: str, tmp_path: Path) -> None:
    root = FORMATS["YOLO"](tmp_path)
    if file == "classes.txt":
        (root / "data.yaml").unlink()
    write(root / file, f"names: [{', '.join(NAMES[:2])}]".encode("gbk"))
    with pytest.raises(DataError, match=file) as caught:
        open_boxes(root)
    assert "save it as UTF-8" in caught.value.do


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", ""),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("gb2312", "gb2312"),
        ("gbk", "GBK"),
        ("big5", "big5"),
    ],
)
def test_xml_is_read_in_its_own_encoding(encoding: str, declared: str, tmp_path: Path) -> None:
    root = FORMATS["VOC"](tmp_path)
    head = f'<?xml version="1.0" encoding="{declared}"?>\r\n' if declared else ""
    name = "口罩" if encoding != "big5" else "貓"
    write(root / XML, (head + annotation(thing(name, (11, 21, 40, 50)))).encode(encoding))
    folder = open_boxes(root, on_defect="refuse")
    (picture,) = folder.images["train"]
    assert [folder.classes[label] for label in picture.labels] == [name]
    assert picture.boxes.tolist() == [[10, 20, 40, 50]]


@pytest.mark.parametrize(
    "head", ["", '<?xml version="1.0" encoding="utf-8"?>', '<?xml version="1.0" encoding="klingon"?>']
)
def test_xml_in_another_encoding_than_it_says_is_refused(head: str, tmp_path: Path) -> None:
    root = FORMATS["VOC"](tmp_path)
    write(root / XML, (head + annotation(thing("口罩", (11, 21, 40, 50)))).encode("gbk"))
    with pytest.raises(DataError, match=XML) as caught:
        open_boxes(root)
    assert "save it as UTF-8" in caught.value.do
