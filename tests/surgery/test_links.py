"""Channels of an argument of a block, and contexts in models that change around them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from foveate.errors import UsageError
from foveate.surgery import attach, bake, detach, load_adapter, plan, save_adapter

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu()).relu()


class UNet(nn.Module):
    """The blocks of the decoder are modules of a class of their own, called with the joined map."""

    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.e3 = Block(3, 8), Block(8, 16), Block(16, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.d2, self.d1, self.out = Block(32, 16), Block(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.e1(x)
        b = self.e2(max_pool2d(a, 2))
        c = self.e3(max_pool2d(b, 2))
        d = self.d2(torch.cat([b, self.up2(c)], 1))
        return self.out(self.d1(torch.cat([a, self.up1(d)], 1)))


class Weigh(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x).sigmoid()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.se, self.se2, self.b = nn.Conv2d(3, 8, 1), Weigh(), Weigh(), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.se2(self.se(self.a(x))))


class Wrapped(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


X = torch.randn(1, 3, 32, 32)


def test_the_skip_of_a_block_with_children() -> None:
    model = UNet().eval()
    before = model(X)
    planned = plan(model, "se", "skip", example=(X,))
    assert [site.name for site in planned.sites] == ["d2:x.0to16", "d1:x.0to8"]
    attach(model, "se", "skip", example=(X,))
    assert torch.equal(model(X), before)
    assert torch.equal(bake(model)(X), before)
    detach(model)
    assert torch.equal(model(X), before)


def test_attention_with_a_context_takes_the_place_of_a_module() -> None:
    model = Net().eval()
    planned = plan(model, "cross", replace="Weigh", where="se2", context="a", example=(X,))
    assert planned.removed.parameters == 72
    attach(model, "cross", replace="Weigh", where="se2", context="a", example=(X,))
    assert torch.equal(model(X), model.b(model.se(model.a(X))))


def test_a_model_with_a_context_may_be_put_into_another(tmp_path: Any) -> None:
    net = Net()
    attach(net, "cross", "b", context="a", start="paper", example=(X,))
    model = Wrapped(net).eval()
    expected = model(X)
    torch.testing.assert_close(bake(model)(X), expected)
    save_adapter(model, tmp_path / "a.safetensors")
    other = Wrapped(Net()).eval()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if "foveate" not in name})
    load_adapter(other, tmp_path / "a.safetensors", example=(X,))
    assert torch.equal(other(X), expected)


def test_a_replaced_context_is_not_detached_alone() -> None:
    model = Net().eval()
    before = model(X)
    attach(model, "eca", replace="Weigh", where="se", example=(X,))
    attach(model, "cross", "b", context="se", example=(X,))
    attached = model(X)
    with pytest.raises(UsageError, match=r"detach\(model, \['se', 'b'\]\)"):
        detach(model, "se")
    assert torch.equal(model(X), attached)
    detach(model, ["se", "b"])
    assert torch.equal(model(X), before)


def test_a_context_is_not_replaced() -> None:
    model = Net().eval()
    attach(model, "cross", "b", context="se", example=(X,))
    attached = model(X)
    with pytest.raises(UsageError, match="'se', the context of 'b'") as caught:
        attach(model, "eca", replace="Weigh", where="se", example=(X,))
    assert "detach(model, 'b') first" in caught.value.do
    assert torch.equal(model(X), attached)
