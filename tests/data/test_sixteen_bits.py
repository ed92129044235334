"""Grey images of 16 bits have one scale for the whole data set, which the record keeps for val and predict."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import open_box_data, open_data
from foveate.data.images.decode import chosen_greys, grey_range, read_image, to_rgb
from foveate.errors import DataError
from foveate.training.tasks import task


def write(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


def gradient(low: int, high: int) -> np.ndarray:
    return np.linspace(low, high, 40 * 40).reshape(40, 40).round()


@pytest.fixture
def thermal(tmp_path: Path) -> Path:
    """Write 12 images of each class that use 51000 to 52199; every image holds only a part of that range."""
    for kind, level in (("cold", 51000), ("hot", 52000)):
        for k in range(12):
            write(
                tmp_path / "thermal" / kind / f"{k}.{'png' if k % 2 else 'tif'}", gradient(level, level + 199) - k % 3
            )
    return tmp_path / "thermal"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_range_becomes_0_to_255(suffix: str, tmp_path: Path):
    path = write(tmp_path / f"twelve.{suffix}", gradient(0, 4095))
    assert (len(np.unique(read_image(path))), read_image(path).max()) == (16, 15)
    assert grey_range([path]) == ((0, 4095), 1)
    seen = read_image(path, greys=(0, 4095))
    np.testing.assert_array_equal(seen[..., 0], np.rint(gradient(0, 4095) * 255 / 4095))
    assert (seen[..., 0] == seen[..., 2]).all()
    assert read_image(path, greys=(1000, 2000)).min() == 0
    assert read_image(path, greys=(1000, 2000)).max() == 255
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(to_rgb(image, (0, 4095))), seen)


def test_a_constant_image_reads(tmp_path: Path):
    path = write(tmp_path / "flat.png", np.full((8, 8), 700))
    assert np.unique(read_image(path, greys=(700, 700))).tolist() == [0]


def test_one_scale_for_the_whole_data_set_is_noted_and_recorded(thermal: Path):
    data = open_data(thermal, imgsz=32)
    assert data.describe()["greys"] == [50998, 52199]
    assert "24 grey images of 16 bits: 50998 to 52199 become 0 to 255 in every image" in data.describe()["notes"]
    for index, label in enumerate(data.train.labels):
        levels = data.image("train", index)
        assert (levels.max() < 50, levels.min() > 200) == (label == 0, label == 1)
        assert len(np.unique(levels)) > 30


def test_images_of_8_bits_are_left_as_they_are(tmp_path: Path):
    for kind in ("a", "b"):
        for k in range(7):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.full((32, 32), 10 * k, np.uint8)).save(tmp_path / kind / f"{k}.png")
    data = open_data(tmp_path, imgsz=32)
    assert data.describe()["greys"] is None
    write(tmp_path / "a" / "0.png", gradient(100, 300))
    mixed = open_data(tmp_path, imgsz=32)
    assert mixed.describe()["greys"] == [100, 300]
    assert {int(mixed.image("train", k).max()) for k in range(len(mixed.train))} <= {*range(0, 61, 10), 255}


def test_other_data_are_read_with_the_scale_of_the_training(thermal: Path, tmp_path: Path):
    learnt = open_data(thermal, imgsz=32).describe()["greys"]
    assert learnt is not None
    other = write(tmp_path / "other" / "hot" / "x.png", gradient(51000, 51500)).parents[1]
    data = open_data(other, imgsz=32, measured="test", greys=learnt)
    assert data.describe()["greys"] == learnt
    (note,) = [note for note in data.describe()["notes"] if "16 bits" in note]
    assert note.endswith("50998 to 52199 become 0 to 255 in every image, as in training; these hold 51000 to 51500")
    assert data.image("test", 0).max() < 110


def test_prediction_reads_a_file_as_training_did(thermal: Path):
    data = open_data(thermal, imgsz=32)
    described = data.describe()
    item = data.val.items[0]  # pyright: ignore[reportAttributeAccessIssue]
    pixels = read_image(thermal / item.path, greys=described["greys"])
    np.testing.assert_allclose(task("classify").prepare(described, pixels), data.val[0][0], atol=1e-6)


def test_pictures_with_boxes_have_one_scale_too(tmp_path: Path):
    for k in range(9):
        write(tmp_path / "images" / f"{k}.png", gradient(1000, 1400 + k))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{k}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    data = open_box_data(tmp_path, imgsz=32)
    assert data.describe()["greys"] == [1000, 1408]
    assert "9 grey images of 16 bits: 1000 to 1408 become 0 to 255 in every image" in data.describe()["notes"]
    assert all(len(np.unique(data.image("train", k))) > 200 for k in range(len(data.train)))


def test_a_damaged_image_is_named(tmp_path: Path):
    path = write(tmp_path / "half.png", np.random.default_rng(0).integers(0, 4095, (64, 64)))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"half\.png"):
        chosen_greys([path], None)
