"""Published networks with their published weights compute what their authors' code does."""

from pathlib import Path
from typing import Any

import pytest
import torch

import foveate
from foveate.errors import UsageError
from foveate.torch_utils.names import CHILD
from trained import minifasnet
from trained.networks import NETWORKS, SE_SITES, TOLERANCE, block_errors, data, error, load, network, v1se


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_published_network_is_reproduced(name: str, dtype: torch.dtype, shared: Path) -> None:
    inputs = [key for key in data(name, shared) if key.startswith("x/")]
    found = [error(name, shared, at, dtype) for at in range(len(inputs))]
    assert len(found) > 2
    assert max(found) < TOLERANCE[dtype], found


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.blocks])
def test_each_attention_block_is_reproduced(name: str, shared: Path) -> None:
    found = dict(block_errors(name, shared))
    assert found.keys() == {key.split("/")[1] for key in data(name, shared) if key.startswith("attention/")}
    assert max(found.values()) < TOLERANCE[torch.float64], found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parameters_are_the_published_ones(name: str, shared: Path) -> None:
    net, published = network(name, shared, torch.float32), NETWORKS[name]
    assert sum(p.numel() for p in net.parameters()) + published.left_out == published.parameters


def test_a_host_with_se_attached_takes_the_whole_file(shared: Path) -> None:
    path = shared / "data/trained" / NETWORKS["minifasnet_v1se"].file
    net = v1se().double()
    assert foveate.load_published(net, torch.load(path, map_location="cpu", weights_only=True)) == "minifasnet"
    wanted = network("minifasnet_v1se", shared, torch.float64).state_dict()
    assert {key for key, value in net.state_dict().items() if not torch.equal(value, wanted[key])} == set()


def test_the_names_in_the_file_suggest_the_attention_that_the_host_lacks(shared: Path) -> None:
    path = shared / "data/trained" / NETWORKS["minifasnet_v1se"].file
    saved = torch.load(path, map_location="cpu", weights_only=True)
    with pytest.raises(UsageError, match=r"Do: .*'se'.*conv_3\.model\.3\.project\.bn"):
        foveate.load_published(minifasnet.v1se(), saved)
    net = minifasnet.v1se()
    foveate.attach(net, "se", SE_SITES, example=(3, 80, 80), start="paper")
    with pytest.raises(UsageError, match=r"(?s)Do: .*bias=False.*norm=True.*reduction=4"):
        foveate.load_published(net, saved)


def test_the_order_of_the_gates_is_that_of_the_module_where_the_names_fit_two(shared: Path) -> None:
    saved = {key: value for key, value in NETWORKS["rlcsr_x4"].weights(shared).items() if key.startswith("BAM.")}
    options: dict[str, Any] = {"reduction": 6, "bias": False, "norm": False}
    for order, layout in (("parallel", "rlcsr"), ("channel-spatial", "copies")):
        assert foveate.load_published(foveate.attention("cbam", 64, order=order, **options), saved) == layout
    with pytest.raises(UsageError, match=r"Do: build it with order="):
        foveate.load_published(foveate.attention("cbam", 64, order="spatial-channel", **options), saved)


def test_weights_that_are_left_over_or_missing_are_found(shared: Path) -> None:
    weights = NETWORKS["minifasnet_v1se"].weights(shared)
    key = f"{SE_SITES[0]}.{CHILD}.bn1.weight"
    for wrong in ({**weights, "more.weight": torch.zeros(1)}, {k: v for k, v in weights.items() if k != key}):
        with pytest.raises((UsageError, RuntimeError)):
            load(v1se(), wrong)
