"""Tracing with open sides: the sides of maps stay simple formulas, whose comparison is what torch.export waits for."""

from typing import Any

import torch
from torch import nn

from foveate.exporting.program import trace
from foveate.exporting.subject import subject_of
from foveate.models import ensure_torchvision


def test_same_padding_of_timm_is_traced_in_whole_numbers() -> None:
    ensure_torchvision()
    from timm.layers import padding
    from timm.layers.conv2d_same import Conv2dSame

    plain = padding.get_same_padding
    kernels = (3, 5, 3, 1)  # the last one is narrower than its stride
    model = nn.Sequential(*(Conv2dSame(3, 3, kernel, stride=2) for kernel in kernels)).eval()
    program = trace(subject_of(model, (1, 3, 33, 40)), dynamic=True)
    assert padding.get_same_padding is plain
    for height, width in ((33, 40), (47, 30), (34, 81)):
        x = torch.rand(2, 3, height, width)
        torch.testing.assert_close(program.module()(x)[0], model(x), rtol=0, atol=0)
    maps: list[Any] = [node.meta["val"] for node in program.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    assert len(maps) == len(kernels)
    for number, one in enumerate(maps[:3], 1):
        assert str(one.shape[2]).count("//") == number  # one division for each stride
        assert "Max" not in str(one.shape[2])
