import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from foveate.mechanisms import get
from foveate.mechanisms.cbam import CBAM
from foveate.mechanisms.residual_cbam import ResidualCBAM
from foveate.models import ResNetFPN4
from representatives import REPRESENTATIVES

WIDTH = 4


class Listing(nn.Module):
    """The listing in plain torch, layer by layer, with explicit paddings, for H and W that 8 divides."""

    def __init__(self, n: int):
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(n, n, 3, 1, 1), nn.BatchNorm2d(n), ListedBlock(n))
        self.block2 = nn.Sequential(nn.Conv2d(n, n, 3, 2, 1), nn.BatchNorm2d(n), ListedBlock(n), ListedBlock(n))
        self.block3 = nn.Sequential(
            nn.Conv2d(n, 2 * n, 3, 2, 1), nn.BatchNorm2d(2 * n), ListedBlock(2 * n), ListedBlock(2 * n)
        )
        self.block4 = nn.Sequential(
            nn.Conv2d(2 * n, 4 * n, 3, 2, 1), nn.BatchNorm2d(4 * n), ListedBlock(4 * n), ListedBlock(4 * n)
        )
        self.up1 = nn.ConvTranspose2d(n, 2 * n, kernel_size=3, stride=1, padding=1)
        self.up2 = nn.ConvTranspose2d(n, 2 * n, kernel_size=3, stride=2, padding=1, output_padding=1)
        self.up3 = nn.ConvTranspose2d(2 * n, 2 * n, kernel_size=3, stride=4, padding=1, output_padding=3)
        self.up4 = nn.ConvTranspose2d(4 * n, 4 * n, kernel_size=5, stride=8, padding=1, output_padding=5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.maps(x), 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        c1 = self.block1(x)
        c2 = self.block2(c1)
        c3 = self.block3(c2)
        c4 = self.block4(c3)
        return [self.up1(c1), self.up2(c2), self.up3(c3), self.up4(c4)]


class ListedBlock(nn.Module):
    """The listing's residual CBAM: a channel gate from a shared MLP, then a spatial gate from [mean, max]."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.reduce = nn.Linear(channels, int(channels * 0.5))
        self.expand = nn.Linear(int(channels * 0.5), channels)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits = sum(self.expand(torch.relu(self.reduce(pooled))) for pooled in (x.mean((2, 3)), x.amax((2, 3))))
        scaled = x * torch.sigmoid(torch.as_tensor(logits))[:, :, None, None]
        pair = torch.stack([scaled.mean(1), scaled.amax(1)], 1)
        return x + scaled * torch.sigmoid(self.spatial(pair))


def listed(model: ResNetFPN4) -> Listing:
    """Return the listing with the model's weights in the same order; its maps are [mean, max], ours [max, mean]."""
    listing = Listing(WIDTH).train(model.training).to(next(model.parameters()).dtype)
    with torch.no_grad():
        for source, target in zip(model.state_dict().values(), listing.state_dict().values(), strict=True):
            target.copy_(as_listed(source).reshape(target.shape))
    return listing


def as_listed(weight: Tensor) -> Tensor:
    return weight.flip(1) if weight.shape == (1, 2, 7, 7) else weight


def scattered(model: nn.Module) -> Any:
    """Return the model with random biases, scales and statistics, which are 0 or 1 in a new model."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.dim() == 1:
                value.uniform_(0.5, 1.5) if "var" in name else value.normal_()
    return model


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("height", "width"), [*product((8, 16, 24, 32, 40), repeat=2)])
def test_it_is_the_listing(height: int, width: int, training: bool) -> None:
    model = scattered(ResNetFPN4(WIDTH)).train(training)
    listing, x = listed(model), torch.randn(2, WIDTH, height, width)
    torch.testing.assert_close(model(x), listing(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 18), (10, 8), (13, 7), (33, 31)])
def test_at_other_sizes_it_is_the_listing_cut_at_the_end(height: int, width: int) -> None:
    model = scattered(ResNetFPN4(WIDTH)).eval()
    listing, x = listed(model), torch.randn(2, WIDTH, height, width)
    cut = torch.cat([y[:, :, :height, :width] for y in listing.maps(x)], 1)
    torch.testing.assert_close(model(x), cut, atol=1e-6, rtol=1e-6)


def test_its_gradients_are_the_listing_s() -> None:
    model = scattered(ResNetFPN4(WIDTH)).double()
    listing, x, dy = listed(model), torch.randn(2, WIDTH, 16, 24).double(), torch.randn(2, 10 * WIDTH, 16, 24).double()
    model(x).backward(dy)
    listing(x).backward(dy)
    for (name, own), theirs in zip(model.named_parameters(), listing.parameters(), strict=True):
        assert own.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(as_listed(own.grad).reshape(theirs.shape), theirs.grad, msg=name)


@pytest.mark.parametrize("height", range(1, 41))
def test_any_size(height: int) -> None:
    model = ResNetFPN4(2, block=None).eval()
    with torch.inference_mode():
        for width in range(1, 41):
            assert model(torch.zeros(1, 2, height, width)).shape == (1, 20, height, width)
    assert ResNetFPN4(WIDTH).eval()(torch.randn(1, WIDTH, height, 41 - height)).shape == (
        1,
        10 * WIDTH,
        height,
        41 - height,
    )


@pytest.mark.parametrize("level", range(4))
def test_the_cut_is_a_smaller_output_padding(level: int) -> None:
    """For every size that torch reaches by `output_size`, the results are equal; the others are 1 or 2 above 8 k."""
    up = ResNetFPN4(WIDTH).neck[level]
    assert isinstance(up, nn.ConvTranspose2d)
    for size in range(1, 41):
        x = torch.randn(1, up.in_channels, -(-size // 2**level), 3)
        width = up(x).shape[3]
        assert up(x).shape[2] >= size
        try:
            want = up(x, output_size=[size, width])
        except ValueError:
            assert level == 3
            assert size % 8 in (1, 2)
        else:
            assert torch.equal(up(x)[:, :, :size], want)


@pytest.mark.parametrize("width", [1, 2, 5, 16])
@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
@pytest.mark.parametrize("channels", [None, 3])
def test_parameters(width: int, channels: int | None) -> None:
    def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
        return kernel * kernel * inputs * outputs + outputs

    def block(c: int) -> int:
        hidden = max(c // 2, 1)
        return conv(c, c) + conv(c, hidden, 1) + conv(hidden, c, 1) + conv(2, 1, 7)

    n = width
    stages = conv(n, n) + conv(n, n) + conv(n, 2 * n) + conv(2 * n, 4 * n) + 2 * (n + n + 2 * n + 4 * n)
    blocks = 3 * block(n) + 2 * block(2 * n) + 2 * block(4 * n)
    neck = 2 * conv(n, 2 * n) + conv(2 * n, 2 * n) + conv(4 * n, 4 * n, 5)
    stem = conv(channels, n) if channels else 0
    assert sum(p.numel() for p in ResNetFPN4(width, channels=channels).parameters()) == stem + stages + blocks + neck


@pytest.mark.parametrize("block", [*REPRESENTATIVES, None])
def test_every_mechanism_is_a_block(block: str | None) -> None:
    # more than one hidden unit, so that some relu lets the gradient through
    options = {"reduction": 2} if block and "reduction" in get(block).__dataclass_fields__ else {}
    model = ResNetFPN4(16, channels=3, block=block, **options)
    y = model(torch.randn(2, 3, 33, 18))
    assert y.shape == (2, model.out_channels, 33, 18)
    y.square().sum().backward()
    unreached = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert unreached == []


def test_another_attention_takes_the_place_of_cbam() -> None:
    """The listing's CBAM, given as any other mechanism, equals the default."""
    torch.manual_seed(1)
    default = scattered(ResNetFPN4(WIDTH)).eval()
    model = ResNetFPN4(WIDTH, block=CBAM(2, pools=("avg", "max"), norm=False, spatial_bias=True)).eval()
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in default.parameters())
    model.load_state_dict(dict(zip(model.state_dict(), default.state_dict().values(), strict=True)))
    x = torch.randn(2, WIDTH, 17, 23)
    torch.testing.assert_close(model(x), default(x), atol=1e-6, rtol=1e-6)


def test_a_block_by_name_class_or_object() -> None:
    by_name, by_class, by_object = (
        ResNetFPN4(8, block=block, **options).state_dict()
        for block, options in [
            ("residual_cbam", {"reduction": 4}),
            (ResidualCBAM, {"reduction": 4}),
            (ResidualCBAM(reduction=4), {}),
        ]
    )
    shapes = [{name: value.shape for name, value in state.items()} for state in (by_name, by_class, by_object)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert by_name["blocks.0.2.cbam.channel.reduce.weight"].shape[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width"),
        ({"width": 2.0}, "width"),
        ({"channels": 0}, "channels"),
        ({"block": "cbm"}, "cbam"),
        ({"block": 3}, "block=3"),
        ({"block": nn.Conv2d}, "Conv2d"),
        ({"reductoin": 4}, "reduction"),
        ({"block": "se", "reduction": -1}, "reduction"),
        ({"block": None, "reduction": 4}, "only with a mechanism"),
        ({"out_channels": 8}, "keeps its channels"),
        ({"block": "cross", "context_channels": 8}, "keeps its channels"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ResNetFPN4(**options)


@pytest.mark.parametrize("block", ["residual_cbam", "eca", None])
@pytest.mark.parametrize("where", ["blocks.*", "blocks.*.2", "neck.*"])
def test_attention_comes_and_goes(block: str | None, where: str) -> None:
    model = scattered(ResNetFPN4(16, channels=3, block=block)).eval()
    before, x = copy.deepcopy(model.state_dict()), torch.randn(2, 3, 19, 32)
    want = model(x)
    plan = foveate.attach(model, "se", where=where, example=x)
    assert len(plan.sites) >= 4
    torch.testing.assert_close(model(x), want)
    foveate.detach(model)
    assert list(model.state_dict()) == list(before)
    assert torch.equal(model(x), want)


def test_it_exports_with_free_sizes() -> None:
    model = scattered(ResNetFPN4(WIDTH, channels=3)).eval()
    batch, height, width = (
        torch.export.Dim(name, min=low) for name, low in (("batch", 2), ("height", 9), ("width", 9))
    )
    program = torch.export.export(
        model, (torch.randn(2, 3, 35, 26),), dynamic_shapes=({0: batch, 2: height, 3: width},)
    ).module()
    for shape in [(3, 3, 32, 32), (2, 3, 40, 24), (5, 3, 33, 50), (2, 3, 9, 18)]:
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.slow), True], ids=["static", "dynamic"])
def test_it_compiles_whole(dynamic: bool) -> None:
    model = scattered(ResNetFPN4(WIDTH)).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in [(2, WIDTH, 16, 24), (2, WIDTH, 17, 26)]:
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)
