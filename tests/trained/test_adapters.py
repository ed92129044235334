"""Attention attached to a published network, trained, saved, and loaded into another copy of the network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from tolerance import distance
from trained.networks import NETWORKS, data

SE: dict[str, Any] = {"norm": True, "bias": False, "reduction": 4}
NAME = "minifasnet_v2"


def host(shared: Path) -> nn.Module:
    """Return a new MiniFASNet V2 with its published weights."""
    return NETWORKS[NAME].loaded(shared, torch.float32)


@pytest.fixture
def faces(shared: Path) -> Tensor:
    return torch.cat([data(NAME, shared)[f"x/{at}"] for at in range(3)])


def outputs(net: nn.Module, faces: Tensor) -> Tensor:
    with torch.no_grad():
        return net.eval()(faces)


@pytest.mark.parametrize(
    ("mechanism", "options"),
    [("se", SE), ("gct", {}), pytest.param("cbam", {}, marks=pytest.mark.slow)],
    ids=["SE with norms", "GCT", "CBAM"],
)
def test_an_adapter_carries_trained_attention_to_another_copy(
    mechanism: str, options: dict[str, Any], faces: Tensor, shared: Path, tmp_path: Path
) -> None:
    net, path = host(shared), tmp_path / "adapter.safetensors"
    plain = outputs(net, faces)
    plan = foveate.attach(net, mechanism, "residual", example=(3, 80, 80), **options)
    assert len(plan.sites) == 12  # each block that adds its input
    assert torch.equal(outputs(net, faces), plain), "the identity start changes nothing"
    train(net, faces)
    changed = outputs(net, faces)
    assert distance(changed, plain) > 1e-3
    foveate.save_adapter(net, path)
    other = host(shared)
    foveate.load_adapter(other, path, example=(3, 80, 80))
    assert torch.equal(outputs(other, faces), changed)
    foveate.detach(other)
    assert torch.equal(outputs(other, faces), plain)


def train(net: nn.Module, faces: Tensor) -> None:
    """Train the attention for three steps to call every face real; the host stays as it is."""
    foveate.freeze_host(net)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.train()(faces), torch.ones(len(faces), dtype=torch.long)).backward()
        optimizer.step()
