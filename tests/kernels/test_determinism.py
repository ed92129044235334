"""The same numbers every time for a given number of threads, and right ones for each."""

import pytest
import torch

from kernels.cases import DEFAULTS, Layout, Subject, by_kernel, draw, faults, step, steps

pytestmark = pytest.mark.usefixtures("built")

LAYOUTS: list[Layout] = ["nchw", "channels_last"]
# Fewer samples than threads, as many, and more with some left over; each large enough to be shared out.
SHAPES = [(1, 64, 28, 28), (2, 64, 28, 28), (7, 64, 20, 20), (1, 520, 7, 7), (4, 520, 7, 7)]
SUBJECT = pytest.mark.parametrize("subject", [*DEFAULTS, Subject("cbam", {"order": "parallel", "kernel_size": 3})], ids=str)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@SUBJECT
def test_repeated_runs_are_bit_equal(subject: Subject, layout: Layout, shape: tuple[int, ...], threads: int) -> None:
    module = subject.module(shape[1], start="identity")
    x, dy = draw(*shape, layout=layout), draw(*shape, layout=layout, seed=1)
    first, *others = (by_kernel(lambda: step(module, x, dy)) for _ in range(3))
    for other in others:
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


@pytest.mark.parametrize(("dtype", "threads"), [(torch.float32, 3), (torch.bfloat16, 2)], ids=str, indirect=["threads"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@SUBJECT
def test_numbers_with_several_threads(subject: Subject, layout: Layout, dtype: torch.dtype, shape: tuple[int, ...], threads: int) -> None:
    module = subject.module(shape[1], dtype=dtype)
    assert faults(steps(module, lambda seed: draw(*shape, dtype=dtype, layout=layout, seed=seed), draws=2)) == []
