"""Weights of the widespread PyTorch copy of YOLOv4-tiny load by its names, and compute what its structure computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.models import YOLOv4Tiny, load_weights
from foveate.models.detectors import COCO, load_detector, trained_anchors
from foveate.models.weights import has_attention
from models.test_yolov4_tiny import close, images, run, settled

CLASSES = 20
SITES = {"feat1_att": 256, "feat2_att": 512, "upsample_att": 128}
BUILT: dict[int, dict[str, Any]] = {
    0: {},
    1: {"phi": 1, "bias": False},
    2: {"phi": 2, "reduction": 8, "bias": False, "norm": False},
    3: {"phi": 3},
    4: {"phi": 4, "reduction": 16, "bias": False, "activation": "relu"},
}


class Layers(nn.Module):
    """Named layers, and a function of their holder and the input."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    layers = {"conv": nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)}
    return Layers(lambda m, x: functional.leaky_relu(m.bn(m.conv(x)), 0.1), **layers, bn=nn.BatchNorm2d(outputs))


def block(width: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        whole = m.conv1(x)
        first = m.conv2(whole[:, width // 2 :])
        feature = m.conv4(torch.cat([m.conv3(first), first], 1))
        return functional.max_pool2d(torch.cat([whole, feature], 1), 2), feature

    half = width // 2
    layers = {"conv1": conv(width, width, 3), "conv2": conv(half, half, 3), "conv3": conv(half, half, 3)}
    return Layers(forward, **layers, conv4=conv(width, width, 1))


def backbone() -> nn.Module:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.resblock_body1(m.conv2(m.conv1(x)))[0]
        x, feature = m.resblock_body3(m.resblock_body2(x)[0])
        return feature, m.conv3(x)

    blocks = {f"resblock_body{k}": block(64 << k - 1) for k in (1, 2, 3)}
    return Layers(forward, conv1=conv(3, 32, 3, 2), conv2=conv(32, 64, 3, 2), **blocks, conv3=conv(512, 512, 3))


def linears(width: int, ratio: int, make: Callable[..., nn.Module]) -> tuple[nn.Module, nn.Module]:
    return make(width, width // ratio), make(width // ratio, width)


def attention(phi: int, width: int) -> nn.Module:
    def one(*sizes: int) -> nn.Module:
        return nn.Conv2d(sizes[0], sizes[1], 1, bias=False)

    if phi == 1:
        down, up = linears(width, 16, lambda *sizes: nn.Linear(*sizes, bias=False))
        fc = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())
        return Layers(lambda m, x: x * m.fc(x.mean((2, 3)))[..., None, None], fc=fc)
    if phi == 2:
        down, up = linears(width, 8, one)

        def mlp(m: Any, x: Tensor) -> Tensor:
            pooled = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
            return sum((m.fc2(m.fc1(value).relu()) for value in pooled), torch.zeros(())).sigmoid()

        def maps(m: Any, x: Tensor) -> Tensor:
            return m.conv1(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()

        def both(m: Any, x: Tensor) -> Tensor:
            x = x * m.channelattention(x)
            return x * m.spatialattention(x)

        channel = Layers(mlp, fc1=down, fc2=up)
        spatial = Layers(maps, conv1=nn.Conv2d(2, 1, 7, padding=3, bias=False))
        return Layers(both, channelattention=channel, spatialattention=spatial)
    if phi == 3:
        size = {128: 5, 256: 5, 512: 5}[width]  # |(log2(C) + 1) / 2|, and one more where that is even
        layer = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        return Layers(lambda m, x: x * m.conv(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None], conv=layer)

    def directions(m: Any, x: Tensor) -> Tensor:
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        joined = m.bn(m.conv_1x1(torch.cat([rows.transpose(2, 3), columns], 3))).relu()
        rows, columns = joined.split([x.shape[2], x.shape[3]], 3)
        return x * m.F_h(rows.transpose(2, 3)).sigmoid() * m.F_w(columns).sigmoid()

    down, up = linears(width, 16, one)
    norm = nn.BatchNorm2d(width // 16)
    return Layers(directions, conv_1x1=down, bn=norm, F_h=up, F_w=one(width // 16, width))


def copy_of(phi: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        feat1, feat2 = m.backbone(x)
        feat1, feat2 = (m.feat1_att(feat1), m.feat2_att(feat2)) if phi else (feat1, feat2)
        p5 = m.conv_for_P5(feat2)
        up = m.upsample(p5)
        up = m.upsample_att(up) if phi else up
        return m.yolo_headP5(p5), m.yolo_headP4(torch.cat([up, feat1], 1))

    up = nn.Sequential(conv(256, 128, 1), nn.Upsample(scale_factor=2, mode="nearest"))
    outputs = 3 * (5 + CLASSES)
    layers = {
        "backbone": backbone(),
        "conv_for_P5": conv(512, 256, 1),
        "yolo_headP5": nn.Sequential(conv(256, 512, 3), nn.Conv2d(512, outputs, 1)),
        "upsample": Layers(lambda m, x: m.upsample(x), upsample=up),
        "yolo_headP4": nn.Sequential(conv(384, 256, 3), nn.Conv2d(256, outputs, 1)),
    }
    blocks = {name: attention(phi, width) for name, width in SITES.items()} if phi else {}
    return settled(Layers(forward, **layers, **blocks))


def saved(phi: int, path: Path) -> nn.Module:
    torch.manual_seed(phi)
    model = copy_of(phi)
    torch.save(model.state_dict(), path)
    return model


@pytest.mark.parametrize("phi", range(5))
def test_the_copys_weights_give_the_copys_outputs(phi: int, tmp_path: Path) -> None:
    path = tmp_path / "yolov4_tiny_weights_voc.pth"
    theirs = saved(phi, path)
    ours: Any = YOLOv4Tiny(CLASSES, **BUILT[phi], start="paper").eval()
    assert load_weights(ours, path, CLASSES) == ()
    close(run(ours, images()), run(theirs, images()))
    assert has_attention(path) is bool(phi)
    if phi:
        plain = settled(YOLOv4Tiny(CLASSES))
        before = {name: value.clone() for name, value in plain.state_dict().items()}
        options = ", ".join(f"{name}={value!r}" for name, value in BUILT[phi].items())
        with pytest.raises(UsageError, match=r"(?s)without attention at .*sites") as caught:
            load_weights(plain, path, CLASSES)
        assert caught.value.do == f'build it as YOLOv4Tiny(classes, {options}, start="paper")'
        assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
        with pytest.raises(UsageError, match=r"(?s)another attention at .*build it as"):
            load_weights(YOLOv4Tiny(CLASSES, phi=phi % 4 + 1, start="paper"), path, CLASSES)


def test_heads_anchors_and_grey_images(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "yolov4_tiny_weights_voc.pth"
    theirs = saved(0, path)
    assert load_detector(YOLOv4Tiny(3), path) == ("coarse_head", "fine_head")
    assert trained_anchors(path, CLASSES) == COCO[1:4] + COCO[3:6]
    assert trained_anchors(path, 3) is None
    grey: Any = YOLOv4Tiny(CLASSES, channels=1).eval()
    load_weights(grey, path, CLASSES)
    mean = images().mean(1, keepdim=True)
    close(run(grey, mean), run(theirs, mean.expand(-1, 3, -1, -1)))
    assert "has a first convolution for 3 channels, which was fitted to 1" in caplog.text


def test_a_file_of_the_backbone_alone(tmp_path: Path, caplog: Any) -> None:
    """As CSPdarknet53_tiny_backbone_weights.pth has it: the same names without their prefix."""
    torch.manual_seed(0)
    theirs, ours = settled(backbone()), settled(YOLOv4Tiny(3), seed=1)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    torch.save(theirs.state_dict(), tmp_path / "backbone.pth")
    load_weights(ours, tmp_path / "backbone.pth", 3)
    found: dict[str, Any] = {}
    ours.get_submodule("csp3.merge").register_forward_hook(lambda _, a, y: found.update(feat1=y))
    ours.get_submodule("deep").register_forward_hook(lambda _, a, y: found.update(feat2=y))
    run(ours, images())
    close((found["feat1"], found["feat2"]), run(theirs, images()))
    new = {name.split(".")[0] for name, value in ours.state_dict().items() if torch.equal(value, before[name])}
    assert new >= {"p5", "coarse", "coarse_head", "lateral", "fine", "fine_head"}
    assert "has only the backbone of yolov4-tiny-pytorch: new are p5.conv, p5.norm, coarse.conv" in caplog.text


def test_a_layer_that_is_missing_is_named(tmp_path: Path) -> None:
    state = copy_of(0).state_dict()
    torch.save({name: value for name, value in state.items() if "conv_for_P5" not in name}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"without conv_for_P5\.bn, conv_for_P5\.conv"):
        load_weights(YOLOv4Tiny(CLASSES), tmp_path / "a.pth", CLASSES)
