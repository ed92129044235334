"""The sites of "residual" and "stage" where a model returns an image, or has two inputs or a batch of its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.surgery import plan
from surgery import image_hosts as networks

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def names(model: nn.Module, where: str, *shapes: tuple[int, ...]) -> list[str]:
    example = tuple(torch.rand(shape) for shape in shapes or [(1, 3, 64, 64)])
    return [site.name for site in plan(model, "eca", where, example=example).sites]


FINISH: list[Callable[[Tensor, Tensor], object]] = [
    lambda x, y: x + y,
    lambda x, y: y + x,
    lambda x, y: x - y,
    lambda x, y: torch.tanh(x + y),
    lambda x, y: torch.sigmoid(y + x),
    lambda x, y: x + torch.tanh(y),
    lambda x, y: (x + y).clamp(0, 1),
    lambda x, y: {"image": x + y, "grey": (x + y).mean(1), "noise": y},
    lambda x, y: torch.addcmul(x, y, torch.ones(3, 1, 1)),
    lambda x, y: torch.stack([x, y]).sum(0),
    lambda x, y: torch.lerp(x, y, 0.5),
    lambda x, y: x[:, :1] + y,
]


@pytest.mark.parametrize("finish", FINISH)
def test_what_is_added_to_the_image_is_a_prediction(finish: Callable[[Tensor, Tensor], object]) -> None:
    assert names(networks.Denoiser(finish), "stage") == ["net.3"]
    with pytest.raises(UsageError, match="where='stage'"):
        names(networks.Denoiser(finish), "residual")


@pytest.mark.parametrize(
    ("host", "residual", "stage"),
    [
        (networks.SuperResolution, ["body.0.3", "body.1.3"], ["body.1.3"]),
        (networks.Unrolled, [f"steps.{n}.1.conv2" for n in range(3)], ["steps.2.1"]),
        (networks.Pyramid, [], ["body.0.3", "body.1.3", "up.1"]),
        (lambda: networks.ImageUNet(whole=True), [], ["e1.3", "e2.3", "e3.3", "d2.3", "d1.3"]),
        (networks.Mixed, ["c.0.conv2", "c.1.conv2"], ["a.3", "b.3", "c.1", "d.1"]),
        (lambda: networks.ScoresThenPool(nn.AdaptiveAvgPool2d(1)), [], ["a.3", "b.3"]),
        (lambda: networks.ScoresThenPool(nn.AvgPool2d(32)), [], ["a.3", "b.3"]),
        (lambda: networks.ScoresThenPool(nn.AdaptiveMaxPool2d(1)), [], ["a.3", "b.3"]),
    ],
)
def test_no_prediction_is_chosen(host: Callable[[], nn.Module], residual: list[str], stage: list[str]) -> None:
    assert names(host(), "stage") == stage
    if residual:
        assert names(host(), "residual") == residual
    else:
        with pytest.raises(UsageError, match="where='stage'"):
            names(host(), "residual")


@pytest.mark.parametrize("layers", [[8, 8], [16, 8]])
def test_a_block_alone_keeps_its_branch_where_it_does_not_widen_its_input(layers: list[int]) -> None:
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = networks.conv(16, layers[0]), networks.conv(layers[0], 16)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x).relu())

    assert names(Alone(), "residual", (1, 16, 32, 32)) == ["b"]


@pytest.mark.parametrize("size", [124, 188, 252])
def test_unpadded_convolutions_make_no_new_levels(size: int) -> None:
    assert names(networks.ImageUNet(0), "stage", (1, 3, size, size)) == ["e1.3", "e2.3", "e3.3", "d2.3", "d1.3"]


BOTH = ["rgb.layer1.1", "thermal.layer1.1", "rgb.layer2.1", "thermal.layer2.1"]


@pytest.mark.parametrize(
    "fuse",
    [
        lambda a, b: (a, b),
        lambda a, b: (a + b, b),
        lambda a, b: (a + b, a + b),
        lambda a, b: (a + 0.5 * b, b + 0.5 * a),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_both_encoders_have_their_levels(fuse: Callable[..., tuple[Tensor, Tensor]], shared: bool) -> None:
    found = names(networks.TwoEncoders(fuse, shared), "stage", (1, 3, 64, 64), (1, 3, 64, 64))
    assert found == (BOTH[::2] if shared else BOTH)


def test_encoders_without_blocks() -> None:
    pair = (1, 3, 64, 64), (1, 3, 64, 64)
    assert names(networks.TwoPlainEncoders(), "stage", *pair) == ["a1.3", "a2.3", "b1.3", "b2.3"]
    assert names(networks.Siamese(), "stage", *pair) == ["e1.3", "e2.3", "e3.3", "d2.3", "d1.3"]


@pytest.mark.parametrize(
    ("windows", "shape"), [(False, (1, 4, 3, 64, 64)), (False, (2, 4, 3, 64, 64)), (True, (2, 3, 64, 64))]
)
def test_the_model_may_make_its_own_batch(windows: bool, shape: tuple[int, ...]) -> None:
    assert names(networks.Views(windows), "stage", shape) == ["body.1", "body.3"]
    assert names(networks.Views(windows), "residual", shape) == [f"body.{n}.conv2" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "add",
    [
        lambda x, y, scale: torch.addcmul(x, scale, y),
        lambda x, y, scale: torch.stack([x, y]).sum(0),
        lambda x, y, scale: torch.stack([x, y], 1).mean(1),
        lambda x, y, scale: torch.lerp(x, y, 0.5),
    ],
)
def test_every_operation_that_adds_counts(add: Callable[..., Tensor]) -> None:
    assert names(networks.Summed(add), "residual") == ["branch"]


@pytest.mark.parametrize(
    "add", [lambda x, y, scale: torch.cat([x, y])[: len(x)], lambda x, y, scale: torch.maximum(x, y)]
)
def test_other_operations_do_not_count(add: Callable[..., Tensor]) -> None:
    with pytest.raises(UsageError, match="where='stage'"):
        names(networks.Summed(add), "residual")
