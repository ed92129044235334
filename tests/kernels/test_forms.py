"""The other forms of the operations: in place, only the gates, and gradients for some of the inputs."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.cases import OPERATIONS, SUBJECTS, Layout, Subject, by_kernel, draw, recorded, step
from thinned import thinned

pytestmark = pytest.mark.usefixtures("built")

LAYOUTS: list[Layout] = ["nchw", "channels_last"]
ONE_OPERATION = [s for s in SUBJECTS if s.mechanism != "residual_cbam" and s.options.get("order") != "spatial-channel"]
SEPARATE = [s for s in ONE_OPERATION if s.mechanism != "simam"]  # whose gates are of channels or positions
LEARNING = [s for s in SEPARATE if s.mechanism != "gather_excite"]  # which have weights
SUBJECT = pytest.mark.parametrize("subject", SEPARATE, ids=str)
FORMS = [(layout, dtype) for layout in LAYOUTS for dtype in (torch.float32, torch.bfloat16)]
PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "all of it": lambda base: base,
    "every second channel": lambda base: base[:, ::2],
    "all but the first row": lambda base: base[:, :, 1:],
    "rows and columns exchanged": lambda base: base.transpose(2, 3),
    "one sample": lambda base: base[1:2],
}


@thinned(3, subject=ONE_OPERATION, form=FORMS, place=PLACES)
def test_in_place_is_the_same_and_touches_nothing_else(
    subject: Subject, form: tuple[Layout, torch.dtype], place: Callable[[Tensor], Tensor]
) -> None:
    layout, dtype = form
    base = draw(3, 10, 9, 7, dtype=dtype, layout=layout)
    x = place(base)
    module = subject.module(x.shape[1], start="identity", dtype=dtype).eval()
    operation, args, (want, *_) = recorded(module, x)
    around = base.clone()
    place(around).copy_(want)
    operation.scale_(x, *args)
    assert torch.equal(base, around)


@thinned(2, subject=SEPARATE, form=FORMS)
def test_the_gates_are_the_ones_that_scale(subject: Subject, form: tuple[Layout, torch.dtype]) -> None:
    layout, dtype = form
    x = draw(3, 24, 9, 5, dtype=dtype, layout=layout)
    operation, args, (want, *_) = recorded(subject.module(24, start="identity", dtype=dtype).eval(), x)
    gates = operation.gates(x, *args)
    shapes = operation.signature(*args).gates(x)
    assert [tuple(gate.shape) for gate in gates] == [shape or (0,) for shape in shapes]
    assert {gate.dtype for gate in gates} == {dtype}
    y = operation.signature(*args).scaled(x.float(), *(gate.float() for gate in gates))
    torch.testing.assert_close(y, want.float(), rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("subject", LEARNING, ids=str)
@pytest.mark.parametrize("frozen", ["x", "weights", "first weight"])
def test_only_what_learns_has_a_gradient(subject: Subject, frozen: str) -> None:
    module, x, dy = subject.module(24), draw(3, 24, 9, 5), draw(3, 24, 9, 5, seed=1)
    want = by_kernel(lambda: step(module, x, dy))
    still = list(module.parameters())[: {"x": 0, "weights": None, "first weight": 1}[frozen]]
    for parameter in still:
        parameter.requires_grad_(False)
    module, x = copy.deepcopy(module), x.clone().requires_grad_(frozen != "x")
    by_kernel(lambda: module(x).backward(dy))
    assert (x.grad is None) == (frozen == "x")
    found: dict[str, Any] = {
        "gradient of x": x.grad,
        **{f"gradient of {name}": p.grad for name, p in module.named_parameters()},
    }
    assert sum(value is None for value in found.values()) == len(still) + (frozen == "x")
    assert [name for name, value in found.items() if value is not None and not torch.equal(value, want[name])] == []


def test_the_forms_are_four() -> None:
    for operation in OPERATIONS:
        assert None not in (operation.full, operation.inplace, operation.gates, operation.backward)
