"""`foveate.explain`: maps, numbers and pictures of models over images."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import foveate
from foveate.detection.heads import decode_all
from foveate.errors import DataError, UsageError
from foveate.gates.explanation import _file_names
from foveate.gates.grad_cam import grad_cam
from foveate.gates.overlay import heat, overlay
from foveate.models import build
from foveate.models.yolov4_tiny import YOLOv4Tiny
from foveate.normalisation import IMAGENET, set_normalisation

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(3)]
CAM = "Grad-CAM: predicted class"
BOXES = [[[20, 10, 40, 30]], [], [[0, 0, 60, 40]]]


def network(attention: str = "cbam") -> nn.Module:
    """Return a small network whose gates are far from constant."""
    torch.manual_seed(0)
    model = build("resnet8", classes=4, channels=3)
    plan = foveate.attach(model, attention, start="paper", example=(1, 3, 32, 32))
    assert plan.sites
    for name, parameter in model.named_parameters():
        if "foveate" in name:
            nn.init.normal_(parameter, std=0.7)
    return model.eval()


@pytest.fixture(scope="module")
def explained() -> Any:
    return foveate.explain(
        {"CBAM": network(), "Coordinate <b>": network("coordinate")},
        PICTURES,
        boxes=BOXES,
        classes=["a", "b", "c", "<i>"],
        imgsz=32,
    )


def test_each_gate_of_each_arm_and_picture_has_its_numbers(explained: Any) -> None:
    rows = explained.numbers
    assert {row["arm"] for row in rows} == {"CBAM", "Coordinate <b>"}
    assert {row["gate"] for row in rows} == {"channel", "spatial", "row", "column", "row × column", CAM}
    assert len(rows) == 3 * (3 * (2 + 3) + 2)  # images, sites, gates, and Grad-CAM of both arms
    cam = [row for row in rows if row["gate"] == CAM][:3]
    assert [(row["layer"], row["inside"] is None) for row in cam] == [("layer3", k == 1) for k in range(3)]
    assert (cam[0]["area"], cam[2]["inside"]) == (0.25, 1)
    spatial = [row for row in rows if row["gate"] == "spatial"]
    assert [row["inside"] is None for row in spatial] == [False, True, False] * 3
    assert all(row["inside"] == row["area"] == 1 for row in spatial[2::3])  # its box is the whole image
    assert all(row["area"] == pytest.approx(0.25) for row in spatial[::3])  # 20 x 20 of the middle 40 x 40
    assert all(0 < row["entropy"] <= 1 and 0 <= row["saturated"] <= 1 for row in spatial)
    assert all(row["inside"] is None for row in rows if row["gate"] == "channel")


def test_pictures_are_those_that_the_model_sees(explained: Any) -> None:
    maps = explained.arms["CBAM"]
    middle = Image.fromarray(PICTURES[0]).crop((10, 0, 50, 40)).resize((32, 32), Image.Resampling.BILINEAR)
    assert maps["images"].shape == (3, 32, 32, 3)
    assert np.abs(maps["images"][0].astype(float) - np.asarray(middle)).mean() < 12
    assert maps["boxes"][0].tolist() == [[8, 8, 24, 24]]
    assert maps["predictions"].shape == (3,)


def test_grad_cam_is_that_of_the_definition(explained: Any) -> None:
    """The features weighed by the mean gradient of the class's score, without the negative part."""
    model, x, kept = network(), torch.randn(2, 3, 32, 32), []
    name = str(explained.arms["CBAM"]["cam_layer"])
    assert name == "layer3"
    before = hooks(model)
    handle = model.get_submodule(name).register_forward_hook(lambda _, inputs, output: kept.append(output))
    (gradient,) = torch.autograd.grad(model(x).max(1).values.sum(), kept)
    handle.remove()
    expected = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu()
    found = grad_cam(model, x)
    assert found is not None
    np.testing.assert_allclose(found.maps["predicted class"], expected.detach(), atol=1e-6)
    assert found.layer == name
    assert hooks(model) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_grad_cam_of_a_detector_explains_its_best_box() -> None:
    """By hand: the gradient of the best score at the features that enter the head of that box."""
    torch.manual_seed(0)
    model = YOLOv4Tiny(3, attention="cbam", start="paper").eval()
    x, kept = torch.rand(2, 3, 64, 96), []
    heads = model.coarse_head, model.fine_head
    handles = [head.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])) for head in heads]
    scores = decode_all(torch, model(x), model.heads)[1]
    best = scores.flatten(1).argmax(1) // 3
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(scores.flatten(1).max(1).values.sum(), kept)
    coarse, fine = (
        (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
        for gradient, features in zip(gradients, kept, strict=True)
    )
    of_head = [int(k) // (3 * 2 * 3) > 0 for k in best]  # the first 3 anchors x 2 x 3 boxes are of the coarse head
    assert all((one > 0).any() == is_fine for one, is_fine in zip(fine, of_head, strict=True))
    expected = nn.functional.interpolate(coarse, (4, 6), mode="bilinear") + fine
    found = grad_cam(model, x)
    assert found is not None
    assert (list(found.maps), found.layer) == (["best box"], "coarse_head and fine_head")
    np.testing.assert_allclose(found.maps["best box"], expected[:, 0].detach(), atol=1e-9, rtol=1e-3)
    named = grad_cam(model, x, {"a": 0, "c": 2})
    assert named is not None
    assert list(named.maps) == ["a", "c"]
    best_class = int(scores[0].amax(0).argmax())
    same = grad_cam(model, x[:1], {"it": best_class})
    assert same is not None
    np.testing.assert_allclose(same.maps["it"], found.maps["best box"][:1], atol=1e-9, rtol=1e-3)
    with pytest.raises(UsageError, match="which has 3"):
        grad_cam(model, x, {"d": 3})


def test_grad_cam_of_named_classes() -> None:
    model, options = network(), {"imgsz": 32, "classes": ["a", "b", "c", "d"]}
    found = foveate.explain(model, PICTURES, boxes=BOXES, grad_cam=["d", "a"], **options)
    assert {row["gate"] for row in found.numbers} >= {"Grad-CAM: d", "Grad-CAM: a"}
    assert found.arms["CBAM"]["cam_numbers/d"].shape == (3, 4)
    with pytest.raises(UsageError, match="did you mean"):
        foveate.explain(model, PICTURES, grad_cam=["aa"], **options)
    with pytest.raises(UsageError, match="pass the numbers of classes"):
        foveate.explain(model, PICTURES, grad_cam=["aa"], imgsz=32)
    assert "cam/3" in foveate.explain(model, PICTURES, grad_cam=["3"], imgsz=32).arms["CBAM"]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_it_shows_itself_with_names_escaped(explained: Any) -> None:
    page = explained._repr_html_()
    assert page.startswith('<img alt="Attention over image 1" src="data:image/png;base64,')
    assert "<b>" not in page
    assert isinstance(explained.plot(2), Figure)
    with pytest.raises(UsageError, match="0 to 2"):
        explained.plot(3)


def test_it_is_written_as_a_page_pictures_and_numbers(explained: Any, tmp_path: Path) -> None:
    page = explained.save(tmp_path / "deep")
    assert page == tmp_path / "deep" / "explorer.html"
    assert sorted(path.name for path in (tmp_path / "deep" / "pictures").iterdir()) == [
        f"image_{k}.png" for k in (1, 2, 3)
    ]
    with Image.open(tmp_path / "deep" / "pictures" / "image_2.png") as drawn:
        assert drawn.size[0] > 600
    with (tmp_path / "deep" / "numbers.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(explained.numbers)
    assert float(rows[0]["entropy"]) == explained.numbers[0]["entropy"]


def test_every_image_has_a_file_of_its_own() -> None:
    names = ["x/1.jpg", "1-2.png", "1-3.png", "y/1.png", "Z.png", "z.png", "?"]
    assert [*_file_names(names)] == ["1", "1-2", "1-3", "1-4", "Z", "z-6", "image-7"]
    assert [*_file_names(["a/1.jpg", "1-3.png", "b/1.jpg"])] == ["1", "1-3", "1-4"]


def test_dead_gates_are_named() -> None:
    model = network("se")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_() if "foveate" in name else None
    found = foveate.explain(model, PICTURES, imgsz=32, grad_cam=False)
    assert len(found.dead) == 3
    assert all(one.endswith("channel: constant: 0.5 everywhere, for every image") for one in found.dead)
    assert found.dead[0] in str(found)
    assert found.dead[0] in found._repr_html_()
    assert "cam_layer" not in found.arms["SE"]


def test_files_folders_images_and_tensors_are_images(tmp_path: Path) -> None:
    model = network("spatial")
    set_normalisation(model, IMAGENET)
    for k, pixels in enumerate(PICTURES):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{k}.png")
    options: dict[str, Any] = {"imgsz": 32, "grad_cam": False}
    whole = foveate.explain(model, tmp_path, **options)
    assert whole.names == ["0.png", "1.png", "2.png"]
    assert whole.notes == []
    one = foveate.explain(model, tmp_path / "in" / "1.png", **options)
    pil = foveate.explain(model, Image.fromarray(PICTURES[1]), **options)
    (key,) = [key for key in whole.arms["SpatialAttention"] if key.startswith("gate/")][:1]
    expected = whole.arms["SpatialAttention"][key][1]
    for other in (one, pil):
        np.testing.assert_allclose(other.arms["SpatialAttention"][key][0], expected, atol=1e-6)
    tensors = foveate.explain(model, torch.randn(2, 3, 20, 28), **options)
    assert tensors.arms["SpatialAttention"]["images"].shape == (2, 20, 28, 3)


def test_boxes_fit_a_file_that_is_decoded_smaller_than_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (600, 400)).save(tmp_path / "large.jpg")
    found = foveate.explain(network(), tmp_path / "large.jpg", boxes=[[[200, 100, 400, 300]]], imgsz=32, grad_cam=False)
    assert found.arms["CBAM"]["boxes"].tolist() == [[[8, 8, 24, 24]]]


def test_grad_cam_is_left_out_where_no_class_is_predicted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    foveate.attach(model, "spatial", where="1", example=(1, 3, 32, 32))
    assert foveate.explain(model, PICTURES, imgsz=32).notes[1:] == [
        "Grad-CAM is left out for SpatialAttention, which returns neither classes nor boxes."
    ]
    with pytest.raises(UsageError, match="a classifier, whose output"):
        foveate.explain(model, PICTURES, imgsz=32, grad_cam=True)


def test_what_cannot_be_explained_is_refused(tmp_path: Path) -> None:
    model, other = network("se"), object()
    with pytest.raises(UsageError, match="none, and a model without a run"):
        foveate.explain(model)
    with pytest.raises(UsageError, match="a model with attention"):
        foveate.explain(build("resnet8", classes=4, channels=3), PICTURES, imgsz=32, grad_cam=False)
    foveate.attach(
        plain := build("resnet8", classes=4, channels=3),
        "global_context",
        pool="avg",
        reduction=4,
        example=(1, 3, 32, 32),
    )
    with pytest.raises(UsageError, match=r"nothing of GlobalContext.* is shown: it adds one vector to every position"):
        foveate.explain(plain, PICTURES, imgsz=32, grad_cam=False)
    with pytest.raises(UsageError, match="a Keras model, a loaded run"):
        foveate.explain(other, PICTURES)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="those of 1"):
        foveate.explain(model, PICTURES, boxes=[[]], imgsz=32)
    with pytest.raises(UsageError, match="arms of it"):
        foveate.explain(model, PICTURES, arms=["cbam"], imgsz=32)
    with pytest.raises(UsageError, match="type float64"):
        foveate.explain(model, [PICTURES[0] / 255], imgsz=32)
    (tmp_path / "broken.png").write_bytes(b"no image")
    for place in (tmp_path / "broken.png", tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match=r"\.png|no such file|broken"):
            foveate.explain(model, place, imgsz=32)


def test_a_recording_is_a_figure_too() -> None:
    model, x = network(), torch.randn(3, 3, 32, 32)
    with foveate.record(model) as maps, torch.no_grad():
        model(x)
    made = maps.plot(np.stack([one[:32, :32] for one in PICTURES]), most=2)
    texts = [text.get_text() for text in made.axes[0].texts]
    assert sum(text.endswith("· spatial") for text in texts) == 3
    assert sum(text.startswith("sample 2") for text in texts) == 6
    assert (maps._repr_html_() or "").startswith("<img ")
    with foveate.record(model) as nothing:
        pass
    assert nothing._repr_html_() is None
    with pytest.raises(UsageError, match="a recording with gates"):
        nothing.plot()


def test_names_cannot_be_read_as_formulas() -> None:
    made = foveate.explain({r"$\frac{1}{0}$ 苹果": network("se")}, PICTURES[:1], imgsz=32, grad_cam=False).plot()
    made.savefig(io.BytesIO(), format="png")  # warnings are errors
    assert made.axes[0].texts[0].get_text() == r"$\frac{1}{0}$ \u82f9\u679c"


def test_overlays_have_the_colours_of_the_scale() -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    shown = overlay(pixels, np.array([[0.5, 1.5]]), fade=1)
    assert shown[0, 0, 2] > shown[0, 0, 0]  # below 1: blue
    assert shown[0, 7, 0] > shown[0, 7, 2]  # above 1: red
    assert (overlay(pixels, np.array([[0.5, 1.5]]), fade=0) == pixels).all()
    hot = heat(pixels, np.array([[0.0, 3.0]]), fade=1)
    assert np.ptp(hot[0, 0].astype(int)) < 20
    assert hot[0, 7, 0] > hot[0, 7, 2]
    assert (heat(pixels, np.zeros((2, 2))) == heat(pixels, np.zeros((1, 1)))).all()
