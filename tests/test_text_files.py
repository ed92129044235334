"""Text files are read as UTF-8, or as their byte order mark says; no other encoding is guessed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.cli.config import read_config
from foveate.data.boxes.box_folder import open_boxes
from foveate.errors import DataError, UsageError
from foveate.text_files import decoded

WORDS = "mésange\n口罩\r\n安全帽\n"
AT = Path("data") / "classes.txt"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_utf_8_and_marked_utf_16_read_the_same(encoding: str):
    assert decoded(WORDS.encode(encoding), AT) == WORDS


def test_both_byte_orders_of_utf_16_read():
    for order, mark in (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")):
        assert decoded(mark + WORDS.encode(order), AT) == WORDS


@pytest.mark.parametrize(
    ("content", "received"),
    [
        ("口罩\n安全帽\n".encode("gbk"), "bytes in line 1 that are not UTF-8: 0xbf"),
        ("cat\nmésange\n".encode("latin-1"), "bytes in line 2 that are not UTF-8: 0xe9"),
        ("cat\nマスク\n".encode("shift_jis"), "bytes in line 2 that are not UTF-8: 0x83"),
        ("cat\nкот\n".encode("cp1251"), "bytes in line 2 that are not UTF-8: 0xea"),
        ("cat\n".encode("utf-16-le"), "zero bytes, as in UTF-16"),
        ("cat\n".encode("utf-16-be"), "zero bytes, as in UTF-16"),
        ("cat\n".encode("utf-32"), "zero bytes, as in UTF-16"),
        ("cat\n".encode("utf-16") + b"x", "not UTF-16, as its first bytes promise"),
        (b"\x89PNG\r\n\x1a\n", "bytes in line 1 that are not UTF-8: 0x89"),
        (b"\0\0\0", "zero bytes"),
    ],
)
def test_any_other_encoding_is_refused_with_the_way_to_save_it(content: bytes, received: str):
    for kind in (DataError, UsageError):
        with pytest.raises(kind) as caught:
            decoded(content, AT, kind)
        assert caught.value.expected == f"text in UTF-8 in {AT}"
        assert received in caught.value.received
        assert caught.value.do.startswith("save it as UTF-8")


def boxes(root: Path, file: str, content: bytes) -> Path:
    """Write 9 images with YOLO's boxes and one more file, or the same file in place of the first labels."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for k in range(9):
        Image.fromarray(np.full((40, 40, 3), 20 * k, np.uint8)).save(root / f"images/p{k}.png")
        (root / f"labels/p{k}.txt").write_text(f"{k % 2} .5 .5 .4 .4\r\n")
    (root / file).write_bytes(content)
    return root


NAMES: dict[str, Callable[..., str]] = {
    "classes.txt": lambda *names: "\r\n".join(names),
    "data.yaml": lambda *names: f"names: [{', '.join(names)}]\r\n",
}


@pytest.mark.parametrize("file", NAMES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_class_names_arrive_as_they_were_written(file: str, encoding: str, tmp_path: Path):
    content = NAMES[file]("口罩", "mésange").encode(encoding)
    assert set(open_boxes(boxes(tmp_path, file, content)).classes) == {"口罩", "mésange"}


@pytest.mark.parametrize("file", NAMES)
@pytest.mark.parametrize(("names", "encoding"), [(("口罩", "安全帽"), "gbk"), (("mésange", "pinson"), "latin-1")])
def test_class_names_in_another_encoding_are_refused(file: str, names: Any, encoding: str, tmp_path: Path):
    root = boxes(tmp_path, file, NAMES[file](*names).encode(encoding))
    with pytest.raises(DataError, match="save it as UTF-8") as caught:
        open_boxes(root)
    assert file in caught.value.expected


def test_labels_that_powershell_wrote_read(tmp_path: Path):
    root = boxes(tmp_path, "labels/p0.txt", "1 .5 .5 .4 .4\r\n".encode("utf-16"))
    (root / "classes.txt").write_text("cat\ndog\n")
    folder = open_boxes(root, on_defect="refuse")
    (first,) = [one for part in folder.images.values() for one in part if one.path == "images/p0.png"]
    assert first.labels.tolist() == [1]
    np.testing.assert_allclose(first.boxes, [[12, 12, 28, 28]], atol=1e-4)


def test_a_configuration_in_utf_16_reads_and_one_in_gbk_is_refused(tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_bytes("name: 口罩\n".encode("utf-16"))
    assert read_config(path) == {"name": "口罩"}
    path.write_bytes("name: 口罩\n".encode("gbk"))
    with pytest.raises(UsageError, match="save it as UTF-8"):
        read_config(path)
