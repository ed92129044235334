"""`foveate explain`: runs and models over images, from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.conftest import Foveate
from foveate.models import build
from foveate.surgery import attach, host_state_dict, save_adapter

SMALL = ("--train-count", "64", "--val-count", "20", "--test-count", "20", "--epochs", "1", "--batch", "32")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a <b>&.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return path


@pytest.mark.usefixtures("opened_anew")
def test_a_run_is_explained_over_its_own_images_and_over_others(foveate: Foveate, photo: Path) -> None:
    assert foveate("train", *SMALL, "--attention", "cbam:reduction=4", "--name", "t").code == 0
    own = foveate("explain", "runs/train/t", "--no-grad-cam")
    assert own.code == 0
    assert own.out.startswith("8 images, 1 arm: CBAM")
    folder = Path(own.last)
    assert folder == Path("runs/explain/t").resolve()
    assert len(list((folder / "pictures").glob("*.png"))) == 8
    row = next(line.split() for line in own.out.splitlines() if "spatial" in line)
    assert all(0 <= float(number) <= 100 for number in row[-4:])
    other = foveate("explain", "runs/train/t", photo, "--json", "--cam-classes", "3, 8")
    found = json.loads(other.out)
    assert found["images"] == [photo.name]
    assert Path(found["run"]).name == "t-2"
    assert [path.name for path in (Path(found["run"]) / "pictures").iterdir()] == ["a_b.png"]
    assert {row["gate"] for row in found["numbers"]} == {"spatial", "channel", "Grad-CAM: 3", "Grad-CAM: 8"}
    assert {row["inside"] for row in found["numbers"]} == {None}
    assert foveate("train", *SMALL, "--attention", "se", "--name", "u").code == 0
    again = json.loads(foveate("explain", "runs/train/u", ".", "--no-grad-cam", "--json").out)
    assert again["images"] == [photo.name]  # not those of earlier results
    refused = foveate("explain", "runs/train/t", "--weights", "x.pth")
    assert (refused.code, "--weights for runs/train/t" in refused.err) == (2, True)
    both = foveate("explain", "runs/train/t", photo, "--cam-classes", "3", "--no-grad-cam")
    assert (both.code, "leave one out" in both.err) == (2, True)
    missing = foveate("explain", "runs/train/t", "none.png")
    assert (missing.code, "none.png" in missing.err) == (3, True)


def test_a_model_by_name_has_its_attention_from_an_adapter(foveate: Foveate, photo: Path) -> None:
    model = build("resnet8", 4)
    attach(model, "se", example=(1, 3, 32, 32))
    save_adapter(model, "attention.safetensors")
    torch.save(host_state_dict(model), "host.pth")
    done = foveate(
        *("explain", "resnet8", photo, "--classes", 4, "--imgsz", 32, "--weights", "host.pth", "--no-grad-cam"),
        *("--adapter", "attention.safetensors", "--name", "m"),
    )
    assert done.code == 0, done.err
    assert "Dead gate: SE" in done.err
    assert "changes the features by less than 1 %" in done.err
    assert Path(done.last, "explorer.html").is_file()
    plain = foveate("explain", "resnet8", photo, "--classes", 4, "--imgsz", 32, "--no-grad-cam")
    assert (plain.code, "a model with attention" in plain.err) == (2, True)
