"""The forms of gather-excite without golden data of their own, and its maps of one size."""

import pytest
import torch
from torch import nn

import foveate
from foveate.errors import UsageError


def test_a_convolution_over_the_whole_map_refuses_other_maps_with_their_size() -> None:
    module = foveate.attention("gather_excite", 32, variant="theta-plus", size=(7, 5)).eval()
    assert module(torch.zeros(1, 32, 7, 5)).shape == (1, 32, 7, 5)
    for size in ((5, 7), (8, 5), (1, 1)):
        with pytest.raises(UsageError, match=rf"Received \({size[0]}, {size[1]}\)\nDo: build the module with size="):
            module(torch.zeros(1, 32, *size))


@pytest.mark.parametrize("size", [(9, 6), (1, 1), (16, 3)])
def test_theta_over_four_positions_is_two_strided_convolutions_repeated_over_the_map(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = foveate.attention("gather_excite", 8, variant="theta", extent=4).eval()
    layers = [ours.get_submodule(f"gather{step}.{layer}") for step in (1, 2) for layer in ("conv", "norm")]
    theirs = nn.Sequential(
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
        nn.BatchNorm2d(8),
    ).eval()
    for layer, place in zip(layers, (0, 1, 3, 4), strict=True):
        theirs[place].load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, *size)
    gate = nn.functional.interpolate(theirs(x), size).sigmoid()
    torch.testing.assert_close(ours(x), x * gate)
