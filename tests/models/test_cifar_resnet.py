from pathlib import Path

import pytest
import torch

from foveate.errors import UsageError
from foveate.models import CifarResNet, build

PUBLISHED = {
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
}  # 0.27, 0.46, 0.66, 0.85 million in the paper's table 6


@pytest.mark.parametrize(("depth", "parameters"), PUBLISHED.items())
def test_parameters_are_the_published(depth: int, parameters: int) -> None:
    assert sum(p.numel() for p in CifarResNet(depth).parameters()) == parameters


def test_the_trained_host_loads_strictly(shared: Path) -> None:
    path = shared / "data/resnet20_cifar10/resnet20-12fca82f.th"
    content = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(20)
    model.load_state_dict({name.removeprefix("module."): value for name, value in content.items()}, strict=True)
    built = build("resnet20", 10, weights=path)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        logits = model.eval()(images)
        assert torch.equal(logits, built.eval()(images))
    assert logits.shape == (4, 10)
    assert (
        logits.softmax(1).amax(1).mean() > 0.3
    )  # a trained network gives confident outputs; random weights at this width do not


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 17), (1, 1), (64, 48)])
def test_any_size(height: int, width: int) -> None:
    model = CifarResNet(8, classes=7, channels=1, width=4).eval()
    assert model(torch.randn(2, 1, height, width)).shape == (2, 7)


def test_the_shortcut_is_option_a() -> None:
    model = CifarResNet(8)
    x = torch.randn(1, 16, 5, 7)
    y = model.get_submodule("layer2.0.shortcut")(x)
    assert y.shape == (1, 32, 3, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].count_nonzero() == y[:, 24:].count_nonzero() == 0


def test_it_exports_with_free_sizes() -> None:
    model = CifarResNet(8, width=4).eval()
    batch, height, width = (
        torch.export.Dim(name, min=low) for name, low in (("batch", 2), ("height", 8), ("width", 8))
    )
    program = torch.export.export(
        model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: batch, 2: height, 3: width},)
    ).module()
    for shape in [(3, 3, 32, 32), (2, 3, 40, 24), (5, 3, 35, 51)]:
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"depth": 18}, {"depth": 2}, {"depth": -4}, {"width": 0}, {"width": 7}])
def test_wrong_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="Expected"):
        CifarResNet(**options)
