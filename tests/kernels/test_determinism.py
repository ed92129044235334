"""The same numbers every time for a given number of threads, and correct numbers for each."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from kernels.cases import DEFAULTS, Layout, Numbers, Subject, by_kernel, by_reference, draw, faults, step, steps
from kernels.test_values import SHAPE, SPOILT, different
from thinned import thinned

pytestmark = pytest.mark.usefixtures("built")

LAYOUTS: list[Layout] = ["nchw", "channels_last"]
# Fewer samples than threads, as many, and more with a remainder; each large enough to be shared among threads.
SHAPES = [(1, 64, 28, 28), (2, 64, 28, 28), (7, 64, 20, 20), (1, 520, 7, 7), (4, 520, 7, 7)]
SUBJECTS = [*DEFAULTS, Subject("cbam", {"order": "parallel", "kernel_size": 3})]


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Set the number of torch's threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@thinned(3, subject=SUBJECTS, layout=LAYOUTS, shape=SHAPES, number=[1, 2, 3])
def test_repeated_runs_are_bit_equal(subject: Subject, layout: Layout, shape: tuple[int, ...], number: int) -> None:
    module = subject.module(shape[1], start="identity").train(subject.can_train(shape))
    x, dy = draw(*shape, layout=layout), draw(*shape, layout=layout, seed=1)
    with threads(number):
        first, *others = (by_kernel(lambda: step(module, x, dy)) for _ in range(3))
    for other in others:
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


@thinned(4, subject=SUBJECTS, layout=LAYOUTS, kind=[(torch.float32, 3), (torch.bfloat16, 2)], shape=SHAPES)
def test_numbers_with_several_threads(
    subject: Subject, layout: Layout, kind: tuple[torch.dtype, int], shape: tuple[int, ...]
) -> None:
    dtype, number = kind
    module = subject.module(shape[1], dtype=dtype).train(subject.can_train(shape))

    def by_threads(call: Callable[[], Numbers]) -> Numbers:
        with threads(number):
            return by_kernel(call)

    assert (
        faults(steps(module, lambda seed: draw(*shape, dtype=dtype, layout=layout, seed=seed), draws=1, run=by_threads))
        == []
    )


@pytest.mark.parametrize("where", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("name", ["channel", "cbam", "eca"])
def test_what_is_not_finite_passes_where_threads_share_samples(
    name: str, where: list[tuple[tuple[int | slice, ...], float]]
) -> None:
    module, x = Subject(name).module(SHAPE[1]).eval(), draw(*SHAPE, layout="channels_last")
    for index, value in where:
        x[index] = value
    with threads(SHAPE[0] + 1):
        got = by_kernel(lambda: module(x))
    assert different(by_reference(lambda: module.double()(x.double())), got) == []


@pytest.mark.parametrize("name", ["cbam", "coordinate"])
def test_calls_at_the_same_time_do_not_share_memory(name: str) -> None:
    shapes = [(1, 64, 28, 28), (1, 520, 7, 7), (8, 64, 56, 56)]  # the last needs more than a thread keeps
    subjects = [(Subject(name).module(shape[1]).eval(), draw(*shape)) for shape in shapes]

    def call(number: int) -> torch.Tensor:
        module, x = subjects[number % len(subjects)]
        with torch.inference_mode():
            return module(x)

    want = [call(number) for number in range(len(subjects))]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(call, range(60)))
    assert [number for number, y in enumerate(found) if not torch.equal(y, want[number % len(want)])] == []
