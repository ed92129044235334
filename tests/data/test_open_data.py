import copy
import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from foveate.data import SPLITS, Data, DigitsOptions, open_box_data, open_data
from foveate.data.images.augment import random_view
from foveate.data.images.datasets import ImageFileSet, reduction_for
from foveate.data.images.working_copies import WorkingCopies
from foveate.data.splits import Item
from foveate.errors import DataError, UsageError
from foveate.normalisation import IMAGENET

DIGITS = DigitsOptions(canvas=32, fragments=6, train=60, val=20, test=30)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data(None, digits=DIGITS)


@pytest.mark.parametrize("opener", [open_data, open_box_data])
def test_training_data_cannot_be_measured_as_a_whole(opener: Any, tmp_path: Path):
    with pytest.raises(UsageError, match="measured"):
        opener(tmp_path, measured="train")


@pytest.fixture
def photos(tmp_path: Path) -> ImageFileSet:
    """Eight images whose red grows from left to right and green from top to bottom; the last is a panorama."""
    for k in range(8):
        height, width = (20, 400) if k == 7 else (60, 90)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0], pixels[..., 1], pixels[..., 2] = (
            np.linspace(0, 255, width),
            np.linspace(0, 255, height)[:, None],
            20 * k,
        )
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    items = [Item(f"{k}.png", k % 2) for k in range(8)]
    copies = WorkingCopies(tmp_path, {item.path: reduction_for(32) for item in items})
    return ImageFileSet(copies, items, 32, IMAGENET, seed=0, augment=True)


def test_digits_are_normalised_images_with_labels(digits: Data):
    assert (digits.channels, digits.size, digits.classes) == (1, 32, [str(k) for k in range(10)])
    assert [len(getattr(digits, split)) for split in SPLITS] == [60, 20, 30]
    image, label = digits.train[0]
    assert image.shape == (1, 32, 32)
    assert image.dtype == torch.float32
    assert label == digits.train.labels[0]
    everything = torch.stack([digits.train[i][0] for i in range(60)])
    assert abs(everything.mean()) < 1e-4
    assert abs(everything.std() - 1) < 1e-3


def test_digits_have_boxes_and_masks(digits: Data):
    assert digits.boxes is not None
    assert digits.masks is not None
    for split in SPLITS:
        left, top, right, bottom = digits.boxes[split][3]
        assert digits.masks[split][3, top:bottom, left:right].any()
        assert digits.image(split, 3).shape == (32, 32, 3)


def test_digits_in_three_channels_and_another_size():
    data = open_data(None, imgsz=40, digits=DigitsOptions(train=20, val=10, test=10, channels=3))
    assert (data.channels, data.size) == (3, 40)
    image = data.test[0][0]
    assert image.shape == (3, 40, 40)
    assert torch.equal(image[0], image[2])


def test_the_description_is_json_and_differs_between_data(digits: Data):
    record = json.loads(json.dumps(digits.describe()))
    assert record["fingerprint"] == digits.fingerprint == open_data(None, digits=DIGITS).fingerprint
    assert digits.fingerprint != open_data(None, digits=replace(DIGITS, seed=1)).fingerprint
    assert sum(record["counts"]["train"].values()) == 60
    assert record["options"]["fragments"] == 6
    assert record["notes"] == []


@pytest.mark.parametrize("imgsz", [0, -1, 8, 10**6, "64", 64.0])
def test_a_senseless_size_is_refused(imgsz: Any):
    with pytest.raises(UsageError, match="imgsz"):
        open_data(None, imgsz=imgsz)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_senseless_seed_is_refused(seed: Any, tmp_path: Path):
    with pytest.raises(UsageError, match="seed as a whole number >= 0"):
        open_data(tmp_path, seed=seed)


def test_photos_are_cropped_in_the_middle_for_showing(photos: ImageFileSet):
    picture = photos.image(0)
    assert picture.shape == (32, 32, 3)
    red, green = picture[16, :, 0].astype(int), picture[:, 16, 1].astype(int)
    assert red[0] > 255 / 6 - 10  # a sixth of the width is cut off at each side
    assert red[-1] < 255 * 5 / 6 + 10
    assert green[0] < 12
    assert green[-1] > 243
    assert photos.image(7).shape == (32, 32, 3)


def test_photos_are_normalised_with_imagenets_numbers(photos: ImageFileSet):
    plain = ImageFileSet(photos.copies, photos.items, 32, IMAGENET, seed=0, augment=False)
    image, label = plain[5]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(plain.image(5).copy()) / 255 - mean) / std
    torch.testing.assert_close(image, expected.permute(2, 0, 1))
    assert label == 1


def test_views_depend_only_on_seed_epoch_and_index(photos: ImageFileSet):
    def views(dataset: ImageFileSet, epoch: int) -> torch.Tensor:
        dataset.set_epoch(epoch)
        return torch.stack([dataset[i][0] for i in range(len(dataset))])

    first = views(photos, 0)
    assert not torch.equal(first, views(photos, 1))
    assert torch.equal(first, views(photos, 0))
    other = ImageFileSet(photos.copies, photos.items, 32, IMAGENET, seed=1, augment=True)
    assert not torch.equal(first, views(other, 0))
    assert torch.equal(first, views(copy.deepcopy(photos), 0))
    assert torch.equal(first, views(pickle.loads(pickle.dumps(photos)), 0))
    mirrored = [bool(view[0, 16, 0] > view[0, 16, -1]) for view in first]
    assert 0 < sum(mirrored) < len(mirrored)


def test_views_show_most_of_the_picture(photos: ImageFileSet):
    spans = []
    for epoch in range(30):
        photos.set_epoch(epoch)
        green = photos[0][0][1] * 0.224 + 0.456
        spans.append((green[-1].mean() - green[0].mean()).item())
    assert min(spans) > 0.7 * 0.8**3  # of a crop, at the lowest contrast, brightness and saturation
    assert max(spans) - min(spans) > 0.1


def test_a_view_changes_the_colour_a_little_and_not_the_random_state_of_torch():
    grey = np.full((40, 60, 3), 100, np.uint8)
    state = torch.get_rng_state()
    levels = [float(random_view(grey, 32, 0, epoch, 0).mean()) for epoch in range(40)]
    assert torch.equal(torch.get_rng_state(), state)
    assert random_view(grey, 32, 0).shape == (32, 32, 3)
    assert 78 <= min(levels) < 95
    assert 105 < max(levels) <= 122
    grey.flags.writeable = False
    assert random_view(grey, 32, 0, 5, 0).mean() == levels[5]


@pytest.mark.parametrize("augment", [True, False])
def test_training_photos_are_augmented_unless_that_is_off_and_the_record_says_so(augment: bool, photos: ImageFileSet):
    for k, item in enumerate(photos.items):
        folder = photos.copies.root / "set" / str(item.label)
        folder.mkdir(parents=True, exist_ok=True)
        for copied in range(3):
            shutil.copy(photos.copies.root / item.path, folder / f"{k}-{copied}.png")
    data = open_data(photos.copies.root / "set", imgsz=32, augment=augment)
    described = data.describe()["augmentation"]
    assert ("a crop of 60 to 100 % of the area, randomly mirrored" in described) if augment else described is None
    for split in SPLITS:
        dataset = getattr(data, split)
        plain = ImageFileSet(dataset.copies, dataset.items, 32, IMAGENET, seed=0, augment=False)
        same = [torch.equal(dataset[k][0], plain[k][0]) for k in range(len(dataset))]
        assert not any(same) if augment and split == "train" else all(same)


def test_digits_are_shown_as_they_are_drawn(digits: Data):
    assert digits.describe()["augmentation"] is None


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_never_change_batches(persistent: bool, photos: ImageFileSet):
    """Persistent workers must notice the next epoch too."""
    loader = DataLoader(photos, batch_size=3, num_workers=2, persistent_workers=persistent)  # pyright: ignore[reportArgumentType]
    for epoch in range(3):
        photos.set_epoch(epoch)
        here = torch.stack([photos[i][0] for i in range(len(photos))])
        assert torch.equal(torch.cat([images for images, _ in loader]), here)


def test_damage_that_the_header_hides_names_the_file(photos: ImageFileSet):
    path = photos.copies.root / "2.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"2\.png"):
        photos[2]


def test_opening_needs_no_torch_for_its_import():
    program = (
        "import sys; from foveate.data import open_box_data, open_data; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_pillow_the_fix_is_named():
    program = "import sys; sys.modules['PIL'] = None; from foveate.data import open_data"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert re.search(r'MissingExtra.*\n.*pip install "foveate\[study\]"', run.stderr, re.DOTALL), run.stderr


def test_real_photos(shared: Path):
    data = open_data(shared / "data" / "trashnet6", imgsz=None)
    assert data.classes == ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
    assert [len(getattr(data, split)) for split in SPLITS] == [1768, 328, 431]
    assert data.size == 96
    record: dict[str, Any] = data.describe()
    # the README beside the photos names these pairs
    assert any("more than one split, 2 times" in note and "glass176" in note for note in record["notes"])
    assert any("more than one class, 3 times" in note for note in record["notes"])
    for split in SPLITS:
        image, label = getattr(data, split)[7]
        assert image.shape == (3, 96, 96)
        assert torch.isfinite(image).all()
        assert label == getattr(data, split).items[7].label
