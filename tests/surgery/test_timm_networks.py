"""RELIABILITY row 7: attention learns in every convolutional family of timm, and leaves each network as it was."""

import pytest
import torch
from torch import nn

from foveate.errors import UsageError
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.surgery import attach, detach
from surgery import hosts
from surgery.timm_networks import NETWORKS

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
PIXELS = {"inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 96, "bat_resnext26ts": 256}


def test_there_are_enough() -> None:
    assert len(set(NETWORKS)) == len(NETWORKS) >= 120


@pytest.mark.slow
@pytest.mark.reliability(7)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_timm(name: str) -> None:
    check(name)


def check(name: str) -> int:
    """Attach, run forward and backward, detach; return the number of sites."""
    ensure_torchvision()
    import timm

    pixels = PIXELS.get(name, 64)
    model = with_statistics(hosts.settle(timm.create_model(name)), hosts.image(4, 3, pixels, pixels))
    x = hosts.image(2, 3, pixels, pixels)
    before, state = hosts.run(model, x), {key: value.clone() for key, value in model.state_dict().items()}
    assert torch.isfinite(before).all()
    sites = attach_somewhere(model, pixels)
    assert torch.equal(hosts.run(model, x), before)

    new = {key: one for key, one in model.named_parameters() if hosts.CHILD in key.split(".")}
    with torch.no_grad():
        for key, one in new.items():
            if "reduce" in key:  # no ReLU switches off all hidden units
                one.fill_(float(key.endswith("bias")))
            elif not one.any():  # too small to close a gate
                one.fill_(1e-3)
    model(x).square().mean().backward()
    idle = [key for key, one in new.items() if one.grad is None or not one.grad.isfinite().all() or not one.grad.any()]
    assert idle == []
    detach(model)
    assert torch.equal(hosts.run(model, x), before)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    return sites


def with_statistics(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Let batch norms take their statistics from images, so that values do not grow from block to block."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    hosts.run(model, images)
    return model.eval()


def attach_somewhere(model: nn.Module, pixels: int) -> int:
    """Attach to the residual blocks or, where no branch is added, to the stages."""
    try:
        return len(attach(model, "cbam", example=(1, 3, pixels, pixels)).sites)
    except UsageError as error:
        assert "where='stage'" in str(error)  # noqa: PT017 - either is right
        return len(attach(model, "cbam", "stage", example=(1, 3, pixels, pixels)).sites)
