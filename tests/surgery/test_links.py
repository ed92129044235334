"""Channels of an argument of a block, and contexts in models that change around them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.surgery import attach, bake, detach, load_adapter, plan, save_adapter
from surgery import segmentation_hosts as networks
from surgery.se_hosts import SqueezeExcite, Wrapper

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.se, self.se2 = SqueezeExcite(8), SqueezeExcite(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.se2(self.se(self.a(x))))


X = torch.randn(1, 3, 32, 32)


def test_the_skip_of_a_block_with_children() -> None:
    """The joins are modules that hold their layers, and are no containers."""
    model = networks.UNet().eval()
    for name in ("d2", "d1"):
        model.add_module(name, Wrapper(model.get_submodule(name)))
    before = model(X)
    planned = plan(model, "se", "skip", example=(X,))
    assert [site.name for site in planned.sites] == ["d2:x.0to32", "d1:x.0to16"]
    attach(model, "se", "skip", example=(X,))
    assert torch.equal(model(X), before)
    assert torch.equal(bake(model, example=(X,))(X), before)
    detach(model)
    assert torch.equal(model(X), before)


def test_attention_with_a_context_takes_the_place_of_a_module() -> None:
    model = Net().eval()
    planned = plan(model, "cross", replace="SqueezeExcite", where="se2", context="a", example=(X,))
    assert planned.removed.parameters == 76
    attach(model, "cross", replace="SqueezeExcite", where="se2", context="a", example=(X,))
    assert torch.equal(model(X), model.b(model.se(model.a(X))))


def test_a_model_with_a_context_may_be_put_into_another(tmp_path: Any) -> None:
    net = Net()
    attach(net, "cross", "b", context="a", start="paper", example=(X,))
    model = Wrapper(net).eval()
    expected = model(X)
    torch.testing.assert_close(bake(model, example=(X,))(X), expected)
    save_adapter(model, tmp_path / "a.safetensors")
    other = Wrapper(Net()).eval()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if "foveate" not in name})
    load_adapter(other, tmp_path / "a.safetensors", example=(X,))
    assert torch.equal(other(X), expected)


def test_a_replaced_context_is_not_detached_alone() -> None:
    model = Net().eval()
    before = model(X)
    attach(model, "eca", replace="SqueezeExcite", where="se", example=(X,))
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
        attach(model, "eca", replace="SqueezeExcite", where="se", example=(X,))
    assert "detach(model, 'b') first" in caught.value.do
    assert torch.equal(model(X), attached)
