"""Public functions accept a path as str, as Path, and as any other path-like object."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import foveate
from foveate.data import open_box_data, open_data
from foveate.data.images.decode import read_image
from foveate.data.samples import write_samples
from foveate.models import YOLOv4Tiny, build, load_darknet, load_weights, save_darknet, save_weights
from foveate.report.page import build_report
from foveate.studies import StudyOptions
from report import records


class Place:
    def __init__(self, path: Path):
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


Kind = Callable[[Path], str | os.PathLike[str]]


@pytest.fixture(params=[str, Path, Place])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_weights(kind: Kind, tmp_path: Path) -> None:
    path = kind(tmp_path / "a.safetensors")
    one, other = build("resnet8", 2), build("resnet8", 2)
    save_weights(one, path)
    load_weights(other, path, 2)
    assert torch.equal(one.state_dict()["conv1.weight"], other.state_dict()["conv1.weight"])
    again = build("resnet8", 2, weights=path)
    assert torch.equal(one.state_dict()["conv1.weight"], again.state_dict()["conv1.weight"])


def test_adapters(kind: Kind, tmp_path: Path) -> None:
    def host() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())

    model = host()
    foveate.attach(model, "se", "0", example=(1, 3, 8, 8))
    foveate.save_adapter(model, kind(tmp_path / "se.safetensors"))
    foveate.load_adapter(host(), kind(tmp_path / "se.safetensors"), example=(1, 3, 8, 8))


def test_darknet(kind: Kind, tmp_path: Path) -> None:
    model = YOLOv4Tiny(classes=1)
    save_darknet(model, kind(tmp_path / "a.weights"))
    load_darknet(model, kind(tmp_path / "a.weights"))


def test_data(kind: Kind, tmp_path: Path) -> None:
    photos, boxes = write_samples(kind(tmp_path))
    assert open_data(kind(photos)).name == "photos"
    assert open_box_data(kind(boxes)).name == "boxes"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert read_image(kind(tmp_path / "a.png")).shape == (4, 4, 3)


def test_options_and_reports(kind: Kind, tmp_path: Path) -> None:
    places: Any = {"data": kind(tmp_path), "weights": kind(tmp_path / "a.pt"), "project": kind(tmp_path / "runs")}
    assert StudyOptions(**places) == StudyOptions(data=tmp_path, weights=tmp_path / "a.pt", project=tmp_path / "runs")
    assert StudyOptions().data is None
    records.write_run(tmp_path, records.results(arms=2, seeds=2), pictures=0)
    assert build_report(kind(tmp_path)) == tmp_path / "report.html"
