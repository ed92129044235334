"""What SCSA needs of a map beyond its options: channels in quarters, and a window that fits."""

import pytest
import torch

import foveate
from foveate.errors import UsageError


def test_channels_without_quarters_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Expected channels that 4 divides\n.* 6 channels\n.* use it on 8 channels"):
        foveate.attention("scsa", 6)


def test_the_smallest_map_is_the_window() -> None:
    module = foveate.attention("scsa", 8, window=3)
    assert module(torch.rand(1, 8, 3, 4)).isfinite().all()
    with pytest.raises(UsageError, match=r'at least 3 x 3 positions for scsa\n.* 2 x 9\n.* or pool="global"'):
        module(torch.rand(1, 8, 2, 9))
