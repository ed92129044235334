import logging

import pytest
import torch

from foveate.errors import UsageError
from foveate.models import BUILT_IN, CifarResNet, build

HOSTS = [
    ("resnet8", 1, 32),
    ("timm/resnet10t", 3, 64),
    ("timm/resnet10t", 1, 64),
    ("timm/resnet10t.c3_in1k", 3, 64),
    ("torchvision/resnet18", 3, 64),
    ("torchvision/squeezenet1_1", 3, 64),
    ("torchvision/googlenet", 3, 64),
]


@pytest.mark.parametrize(("name", "channels", "size"), HOSTS)
def test_a_host_answers_with_one_logit_a_class(name: str, channels: int, size: int) -> None:
    model = build(name, 5, channels=channels)
    assert model(torch.randn(2, channels, size, size)).shape == (2, 5)  # in training mode too: a tensor, not a tuple


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("resnet20", "built in"), ("resnet18", "timm/resnet18"), ("shufflenet_v2_x0_5", "torchvision/shufflenet_v2_x0_5")],
)
def test_a_bare_name_is_resolved_and_logged(name: str, chosen: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="foveate")
    model = build(name, 3)
    assert isinstance(model, CifarResNet) == (chosen == "built in")
    assert chosen in caplog.text


def test_the_built_in_depths() -> None:
    assert BUILT_IN == ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "pixelnet")


def test_a_model_tied_to_a_size_gets_it() -> None:
    assert build("timm/vit_tiny_patch16_224", 3, imgsz=64)(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet21", "resnet20"),
        ("timm/resnt18", "timm/resnet18"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("timm/hf-hub:someone/something", "timm"),
        ("hf-hub:someone/something", "timm/<name>"),
        ("timm/local-dir:/etc", "timm"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision"),
        ("keras/resnet50", "resnet50"),
        ("../resnet20", "resnet20"),
        ("", "built-in"),
    ],
)
def test_an_unknown_name_is_refused_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, 3)
    assert near in caught.value.do
    assert caught.value.received.startswith(repr(name))


@pytest.mark.parametrize(
    ("name", "classes", "channels"),
    [("resnet20", 0, 3), ("resnet20", 3, 0), ("torchvision/resnet18", 3, 1), ("timm/vgg11", -1, 3)],
)
def test_impossible_shapes_are_refused(name: str, classes: int, channels: int) -> None:
    with pytest.raises(UsageError):
        build(name, classes, channels=channels)


def test_an_error_of_a_library_becomes_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("unexpected keyword argument 'in_chans'")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UsageError, match="in_chans"):
        build("timm/resnet18", 3, channels=1)
