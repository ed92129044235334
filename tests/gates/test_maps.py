from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import foveate
from foveate.errors import UsageError
from foveate.gates.maps import EXTREMES, capture, save_maps


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
    save_maps(capture(model, **given), tmp_path / "deep" / "maps.npz")
    with foveate.record(model.eval()) as maps, torch.no_grad():
        model(given["tensors"])
    with np.load(tmp_path / "deep" / "maps.npz", allow_pickle=False) as found:
        gates = ("1/channel", "1/spatial", "2/row", "2/column")
        assert set(found.files) == {
            *("images", "labels", "predictions", "boxes"),
            *(f"{what}/1/channel" for what in ("channel", "extremes", "features")),
            *("gate/1/spatial", "gate/2/row", "gate/2/column", "gate/2/row × column"),
            *(f"{what}/{gate}" for gate in gates for what in ("numbers", "dead")),
            "numbers/2/row × column",
        }
        assert found["images"].dtype == np.uint8
        assert found["channel/1/channel"].shape == (3, 8)
        assert found["boxes"].tolist() == [[[1, 1, 4, 4]]] * 3
        for kind, gate in (("spatial", maps["1"].spatial), ("row", maps["2"].row), ("column", maps["2"].column)):
            assert gate is not None
            saved = found[f"gate/{1 if kind == 'spatial' else 2}/{kind}"]
            assert saved.dtype == np.float32
            np.testing.assert_allclose(saved, np.broadcast_to(gate.mean(1).numpy(), (3, 6, 9)), atol=1e-6)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["maps.npz"]


def test_boxes_may_be_absent_and_the_model_keeps_its_mode(model: nn.Module):
    assert "boxes" not in capture(model, **arguments(boxes=None))
    assert all(module.training for module in model.modules())


def test_images_may_have_any_number_of_boxes(model: nn.Module):
    boxes = [np.zeros((0, 4)), [[1, 1, 4, 4], [2, 0, 3, 6]], [[0, 0, 1, 1]]]
    found = capture(model, **arguments(boxes=boxes))["boxes"]
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
def test_arguments_that_do_not_fit_are_refused(model: nn.Module, wrong: dict):
    with pytest.raises(UsageError):
        capture(model, **arguments(**wrong))


def test_a_failed_write_keeps_the_old_file(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    maps = capture(model, **arguments())
    save_maps(maps, tmp_path / "maps.npz")
    before = (tmp_path / "maps.npz").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        save_maps(maps, tmp_path / "maps.npz")
    assert (tmp_path / "maps.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["maps.npz"]


def test_batches_do_not_matter(model: nn.Module):
    given = arguments(7)
    whole, parts = (capture(model, **given, batch=batch) for batch in (16, 2))
    assert list(whole) == list(parts)
    for name, array in whole.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(parts[name], array, atol=1e-5, err_msg=name)
        else:
            assert np.array_equal(parts[name], array)


def test_the_channels_that_pass_most_and_least_are_kept_with_their_features(model: nn.Module):
    given = arguments()
    found, x = capture(model, **given), next(model.children())(given["tensors"])
    with foveate.record(model.eval()) as maps, torch.no_grad():
        model(given["tensors"])
    gate = maps["1"].channel
    assert gate is not None
    order = gate[:, :, 0, 0].argsort(1, descending=True)
    assert np.array_equal(found["extremes/1/channel"][:, :EXTREMES], order[:, :EXTREMES])
    assert np.array_equal(found["extremes/1/channel"][:, EXTREMES:], order.flip(1)[:, :EXTREMES])
    np.testing.assert_allclose(
        found["features/1/channel"][1, 0], x[1, order[1, 0]].detach(), atol=1e-6
    )  # few enough cells


def test_channels_that_are_read_have_features_where_these_are_maps() -> None:
    """DANet attends by its input, SCSA with one window by pooled values; SK has a gate for each branch."""
    pixels, x = np.zeros((2, 8, 8, 3), np.uint8), torch.randn(2, 16, 8, 8)
    found = capture(foveate.attention("danet", 16, pairs="channels").eval(), pixels, x)
    assert found["features//channel_pairs"].shape == (2, 2 * EXTREMES, 8, 8)
    found = capture(foveate.attention("scsa", 16, pool="global").eval(), pixels, x)
    assert "channel//channel_pairs" in found
    assert "features//channel_pairs" not in found
    found = capture(foveate.attention("sk", 16, groups=1).eval(), pixels, x)
    np.testing.assert_allclose(found["channel//channel"] + found["channel//channel (2)"], 1, atol=1e-6)
    assert found["numbers//channel (2)"].shape == (2, 4)


def test_groups_of_a_gate_are_heads_of_their_own():
    module = foveate.attention("ema", 16, factor=4).eval()
    found = capture(module, np.zeros((2, 5, 5, 3), np.uint8), torch.randn(2, 16, 5, 5))
    heads = [found[f"gate//spatial {group}"] for group in (1, 2, 3, 4)]
    np.testing.assert_allclose(np.mean(heads, 0), found["gate//spatial"], atol=1e-6)
