"""The memory kept for backward: the input, and little more."""

import pytest
import torch

from foveate.bind.torch.attention import Attention
from kernels.cases import DEFAULTS, Layout, Subject, by_kernel, by_reference, draw
from thinned import thinned

pytestmark = pytest.mark.usefixtures("built")

SHAPES = [(2, 256, 56, 56), (2, 1024, 14, 14), (2, 2048, 7, 7)]
LAYOUTS: list[Layout] = ["nchw", "channels_last"]


def kept(module: Attention, x: torch.Tensor) -> float:
    """Return the bytes kept for backward divided by the bytes of x, without parameters; a storage counts once."""
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    sizes: dict[int, int] = {}

    def note(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        y = module(x.requires_grad_())
    assert y.requires_grad
    return sum(sizes.values()) / x.untyped_storage().nbytes()


@thinned(
    4,
    subject=DEFAULTS,
    shape=SHAPES,
    layout=LAYOUTS,
    start=["paper", "identity"],
    training={"eval": False, "train": True},
)
def test_backward_keeps_little_more_than_the_input(
    subject: Subject, shape: tuple[int, ...], layout: Layout, start: str, training: bool
) -> None:
    module = subject.module(shape[1], start=start).train(training)
    assert 1 <= by_kernel(lambda: kept(module, draw(*shape, layout=layout))) <= 1.1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_plain_operations_keep_several_times_the_input(shape: tuple[int, ...]) -> None:
    module = Subject("cbam").module(shape[1])
    assert by_reference(lambda: kept(module, draw(*shape))) > 2
