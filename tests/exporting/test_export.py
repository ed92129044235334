"""`foveate.export`: the file is run again, compared, and kept with its record; a miss is named unverified."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError, VerificationError
from foveate.exporting.exported import Exported, read_record
from foveate.exporting.formats import onnx
from foveate.models import build

EXAMPLE = (1, 3, 32, 32)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    model = build("resnet8", 10)
    foveate.attach(model, "cbam", start="paper", example=EXAMPLE)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return foveate.export(classifier(), path, EXAMPLE, images=images, about={"classes": ["a", "b"]})


def test_the_record_says_what_was_compared(exported: Exported) -> None:
    record = json.loads(exported.path.with_name("model.onnx.json").read_text())
    assert record == exported.record == read_record(exported.path)
    assert record["verified"]
    checks = record["checks"]
    assert [check["what"] for check in checks] == ["the example", *["another size"] * 3, *["images"] * 13]
    shapes = [tuple(check["shapes"][0]) for check in checks[1:4]]
    assert all(height != width and height % 2 and width % 2 for _, _, height, width in shapes)
    assert len({shape[0] for shape in shapes}) == 3
    assert 0 < exported.difference < 1e-5
    assert sum(check["count"] for check in checks if check["what"] == "images") == 200
    assert {check["agreement"] for check in checks} == {1.0}
    assert record["operators"]["ReduceMax"] == 6
    assert exported.lines()[0].endswith("207 of 207 most likely classes are the same")


def test_the_file_runs_without_foveate_and_says_what_it_is(exported: Exported) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    x = torch.rand(5, 3, 40, 24)
    (found,) = session.run(["output"], {"images": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(np.asarray(found), classifier()(x).numpy(), atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["a", "b"]
    assert [one.shape[1] for one in session.get_inputs()] == [3]


def test_a_file_that_computes_something_else_is_not_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = onnx.open

    def wrong(path: Path, threads: int | None = None) -> Any:
        good = run(path, threads)
        return lambda inputs: [output + (1e-3 if inputs[0].shape[2] != 32 else 0) for output in good(inputs)]

    path = tmp_path / "model.onnx"
    monkeypatch.setattr(onnx, "open", wrong)
    with pytest.raises(VerificationError, match=r"a difference of 1\.0e-03 at input 1x3x33x45") as caught:
        foveate.export(classifier(), path, EXAMPLE)
    assert caught.value.exit_code == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx.json", "model.onnx.unverified"]
    record = read_record(path)
    assert record is not None
    assert [check["difference"] > 1e-4 for check in record["checks"]] == [False, True, True, True]
    monkeypatch.undo()
    assert foveate.export(classifier(), path, EXAMPLE, dynamic=False).record["verified"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]


class Released(nn.Module):
    """Pools as the released coordinate attention does, whose dynamic file computes something else at other sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, (None, 1)).sigmoid() * x  # pyright: ignore[reportArgumentType]


def test_the_released_coordinate_attention_is_caught(tmp_path: Path) -> None:
    with pytest.raises((VerificationError, UsageError)):
        foveate.export(nn.Sequential(nn.Conv2d(3, 4, 1), Released()), tmp_path / "a.onnx", (1, 3, 12, 14))
    assert not (tmp_path / "a.onnx").exists()


def test_the_model_does_not_change(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    foveate.export(model, tmp_path / "a.onnx", (1, 3, 6, 8))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("a.pth", {}, "a file named"),
        ("a.onnx", {"boxes": "nms"}, "a detector whose `heads`"),
        ("a.onnx", {"boxes": "all"}, "boxes"),
        ("a.pt2", {"boxes": "nms"}, "a format with non-maximum suppression"),
        ("a.onnx", {"dynamic": 1}, "dynamic"),
        ("a.onnx", {"conf": 2}, "a confidence"),
    ],
)
def test_what_cannot_work_is_refused(name: str, options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        foveate.export(nn.Conv2d(3, 4, 1), tmp_path / name, (1, 3, 6, 8), **options)
    assert [*tmp_path.iterdir()] == []


def test_a_model_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    class Conditional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(UsageError, match=r"torch\.export can trace"):
        foveate.export(Conditional(), tmp_path / "a.onnx", torch.ones(1, 3, 6, 8))
    assert [*tmp_path.iterdir()] == []
