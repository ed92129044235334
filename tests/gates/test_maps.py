from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import foveate
from foveate.errors import UsageError
from foveate.gates.maps import save_maps


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), foveate.attention("cbam", 8, reduction=4), foveate.attention("coordinate", 8)
    ).train()


def arguments(n: int = 3, **changed: Any) -> dict[str, Any]:
    images = np.zeros((n, 6, 9, 3), np.uint8)
    boxes = np.tile([1, 1, 4, 4], (n, 1))
    numbers = {"labels": range(n), "predictions": [0] * n}
    return {"images": images, "tensors": torch.randn(n, 1, 6, 9), "numbers": numbers, "boxes": boxes} | changed


def test_the_file_holds_what_the_schema_says(model: nn.Module, tmp_path: Path):
    given = arguments()
    save_maps(model, path=tmp_path / "deep" / "maps.npz", **given)
    with foveate.record(model.eval()) as maps, torch.no_grad():
        model(given["tensors"])
    with np.load(tmp_path / "deep" / "maps.npz", allow_pickle=False) as found:
        assert set(found.files) == {
            *("images", "labels", "predictions", "boxes"),
            *("channel/1", "gate/1/spatial", "gate/2/row", "gate/2/column"),
        }
        assert found["images"].dtype == np.uint8
        assert found["channel/1"].shape == (3, 8)
        assert found["boxes"].tolist() == [[[1, 1, 4, 4]]] * 3
        for kind, gate in (("spatial", maps["1"].spatial), ("row", maps["2"].row), ("column", maps["2"].column)):
            assert gate is not None
            saved = found[f"gate/{1 if kind == 'spatial' else 2}/{kind}"]
            assert saved.dtype == np.float32
            np.testing.assert_allclose(saved, np.broadcast_to(gate.mean(1).numpy(), (3, 6, 9)), atol=1e-6)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["maps.npz"]


def test_boxes_may_be_absent_and_the_model_keeps_its_mode(model: nn.Module, tmp_path: Path):
    save_maps(model, path=tmp_path / "maps.npz", **arguments(boxes=None))
    assert "boxes" not in np.load(tmp_path / "maps.npz").files
    assert all(module.training for module in model.modules())


def test_images_may_have_any_number_of_boxes(model: nn.Module, tmp_path: Path):
    boxes = [np.zeros((0, 4)), [[1, 1, 4, 4], [2, 0, 3, 6]], [[0, 0, 1, 1]]]
    save_maps(model, path=tmp_path / "maps.npz", **arguments(boxes=boxes))
    found = np.load(tmp_path / "maps.npz")["boxes"]
    assert found.shape == (3, 2, 4)
    assert np.isnan(found).all(2).tolist() == [[True, True], [False, False], [False, True]]
    assert found[1].tolist() == boxes[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"numbers": {"labels": [1]}},
        {"images": np.zeros((3, 6, 9), np.uint8)},
        {"images": np.zeros((3, 6, 9, 3))},
        {"boxes": np.zeros((3, 2))},
        {"boxes": np.zeros((2, 4))},
    ],
)
def test_arguments_that_do_not_fit_write_nothing(model: nn.Module, tmp_path: Path, wrong: dict):
    with pytest.raises(UsageError):
        save_maps(model, path=tmp_path / "maps.npz", **arguments(**wrong))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_maps(model, path=tmp_path / "maps.npz", **arguments())
    before = (tmp_path / "maps.npz").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        save_maps(model, path=tmp_path / "maps.npz", **arguments())
    assert (tmp_path / "maps.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["maps.npz"]
