"""NaN, infinity, equal maxima, and the other forms of the operations: in place, gates alone, and finished."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from foveate import kernels
from foveate.kernels.finish import ACTIVATIONS, Activation
from foveate.kernels.gpu import cuda_forms
from kernels.cases import Layout, Subject, by_reference, draw, faults, recorded, step, steps
from kernels.interpreted.by_triton import by_triton
from kernels.interpreted.test_triton_numbers import FORMS, QUICK, QUICK_ONE
from kernels.test_values import NAN, SPOILT, different

LAYOUTS: list[Layout] = ["nchw", "channels_last"]
SHAPE = (3, 24, 9, 5)


@pytest.mark.parametrize(("form", "where"), list(zip(FORMS * 3, SPOILT.values(), strict=False)), ids=SPOILT)
@QUICK_ONE
def test_what_is_not_finite_passes(
    subject: Subject, form: tuple[Layout, torch.dtype], where: list[tuple[tuple[int | slice, ...], float]]
) -> None:
    layout, dtype = form
    module, x = subject.module(SHAPE[1], dtype=dtype).eval(), draw(*SHAPE, dtype=dtype, layout=layout)
    for index, value in where:
        x[index] = value
    with torch.no_grad():
        got = by_triton(lambda: module(x))
        assert different(by_reference(lambda: module.double()(x.double())), got) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@QUICK_ONE
def test_a_nan_reaches_its_own_gradients_alone(subject: Subject, layout: Layout) -> None:
    module = subject.module(SHAPE[1]).eval()
    x, dy = draw(*SHAPE, layout=layout), draw(*SHAPE, seed=1)
    x[1, 3, 4, 2] = NAN
    got = by_triton(lambda: step(module, x, dy))
    want = by_reference(lambda: step(module.double(), x.double(), dy.double()))
    assert [name for name in want if not torch.equal(want[name].isnan(), got[name].isnan())] == []


TIED: dict[str, Callable[[int], Tensor]] = {
    "whole numbers": lambda seed: draw(*SHAPE, seed=seed).round(),
    "after a ReLU that shut": lambda seed: torch.zeros(SHAPE),
    "one value a channel": lambda seed: draw(3, 24, 1, 1, seed=seed).repeat(1, 1, 9, 5),
    "one value a position": lambda seed: draw(3, 1, 9, 5, seed=seed).repeat(1, 24, 1, 1),
}
WITH_MAXIMA = [subject for subject in QUICK if subject.mechanism in ("channel", "spatial", "cbam")]


@pytest.mark.parametrize(("layout", "inputs"), list(zip(LAYOUTS * 2, TIED.values(), strict=True)), ids=TIED)
@pytest.mark.parametrize("subject", WITH_MAXIMA, ids=str)
def test_equal_maxima_share_the_gradient(subject: Subject, layout: Layout, inputs: Callable[[int], Tensor]) -> None:
    last = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def x(seed: int) -> Tensor:
        return (inputs(seed) if seed < 100 else draw(*SHAPE, seed=seed)).contiguous(memory_format=last)

    assert faults(steps(subject.module(SHAPE[1]).eval(), x, draws=1, run=by_triton)) == []


@pytest.mark.parametrize("form", FORMS, ids=str)
@QUICK_ONE
def test_the_other_forms_agree(subject: Subject, form: tuple[Layout, torch.dtype]) -> None:
    layout, dtype = form
    x = draw(3, 10, 9, 5, dtype=dtype, layout=layout)
    operation, args, _ = recorded(subject.module(10, start="identity", dtype=dtype).eval(), x)
    want, *_ = cuda_forms.FORMS[operation.name](x, *args)
    gates = cuda_forms.FORMS[f"{operation.name}_gates"](x, *args)
    given = operation.signature(*args)
    assert [tuple(gate.shape) for gate in gates] == [shape or (0,) for shape in given.gates(x)]
    y = given.scaled(x.float(), *(gate.float() for gate in gates))
    torch.testing.assert_close(y, want.float(), rtol=4 * torch.finfo(dtype).eps, atol=0)
    around = x.repeat(1, 2, 1, 1)
    place = around[:, ::2]  # which is no dense map
    place.copy_(x)
    untouched = around[:, 1::2].clone()
    cuda_forms.FORMS[f"{operation.name}_"](place, *args)
    assert torch.equal(place, want)
    assert torch.equal(around[:, 1::2], untouched)


SUBJECTS: list[Subject | None] = [None, Subject("se"), Subject("spatial", {"kernel_size": 3}), Subject("coordinate")]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_the_finish_of_a_block(subject: Subject | None, name: str) -> None:
    x, shortcut = draw(2, 10, 6, 5), 4 * draw(2, 10, 6, 5, layout="channels_last", seed=1)
    run = Activation(name, 0.1)
    args: tuple[Any, ...] = ()
    around: tuple[Any, ...] = ()
    y, form = x, "finish_"
    if subject is not None:
        operation, args, _ = recorded(subject.module(10).eval(), x)
        form, around = f"{operation.name}_finish_", (run.number, run.slope)
        with torch.no_grad(), kernels.using("reference"):
            y = subject.module(10).eval()(run(x))
    for added in (None, shortcut):
        got = x.clone()
        cuda_forms.FORMS[form](got, *around, added, run.number, run.slope, *args)
        torch.testing.assert_close(got, run(y if added is None else y + added), rtol=1e-5, atol=1e-5)
    spoilt = torch.tensor([NAN, float("inf"), -float("inf"), 0.0, -0.0, 7.0]).reshape(1, 6, 1, 1)
    got = spoilt.clone()
    cuda_forms.FORMS["finish_"](got, None, run.number, run.slope)
    torch.testing.assert_close(got, run(spoilt), equal_nan=True)
