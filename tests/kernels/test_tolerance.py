"""The bound on rounding errors (`tolerance`) allows every order of a sum, but no small mistake."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.cases import DEFAULTS, VIEWS, Numbers, Subject, by_reference, draw, faults, steps

SUBJECT = pytest.mark.parametrize("subject", DEFAULTS, ids=str)
DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


class OneByOne(TorchDispatchMode):
    """Add the terms of a sum or mean one after another, the last first: the order with the largest rounding error."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if name not in ("sum", "mean") or len(args) < 2 or not args[0].is_floating_point():
            return func(*args, **(kwargs or {}))
        x, axes, keep = args[0], [axis % args[0].ndim for axis in args[1]], len(args) > 2 and args[2]
        terms = x.movedim(axes, list(range(-len(axes), 0))).flatten(-len(axes)).flip(-1)
        total = terms.float().cumsum(-1)[..., -1].div(terms.shape[-1] if name == "mean" else 1).to(x.dtype)
        return total.reshape([1 if i in axes else size for i, size in enumerate(x.shape)]) if keep else total


@contextmanager
def without_onednn() -> Iterator[None]:
    with torch.backends.mkldnn.flags(enabled=False):
        yield


ORDERS: dict[str, Callable[[], Any]] = {
    "as here": nullcontext,
    "without oneDNN": without_onednn,
    "one by one": OneByOne,
}


@pytest.mark.filterwarnings(
    "ignore:TF32 acceleration on top of oneDNN:UserWarning"
)  # from torch itself, for a setting that is not used
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@DTYPE
@SUBJECT
def test_plain_operations_are_within_the_bound_in_any_order(
    subject: Subject, dtype: torch.dtype, order: Callable[[], Any]
) -> None:
    def run(call: Callable[[], Numbers]) -> Numbers:
        with order():
            return by_reference(call)

    def x(seed: int) -> Tensor:
        return VIEWS["every second channel"](draw(3, 10, 9, 7, dtype=dtype, layout="channels_last", seed=seed))

    assert faults(steps(subject.module(5, dtype=dtype), x, run=run)) == []


def test_adding_one_by_one_is_another_order() -> None:
    x = draw(3, 8, 9, 7)
    with OneByOne():
        other = x.mean((2, 3), keepdim=True)
    assert not torch.equal(other, x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(other, x.mean((2, 3), keepdim=True))


UNITS = 16
MOVED = [
    ("cbam", torch.bfloat16, "gradient of x"),
    ("scse", torch.bfloat16, "gradient of x"),
    ("scse", torch.bfloat16, ".weight"),
]


@pytest.mark.parametrize("number", ["y", "gradient of x", ".weight"])
@DTYPE
@SUBJECT
def test_an_error_of_16_units_in_the_last_place_is_found(subject: Subject, dtype: torch.dtype, number: str) -> None:
    def run(call: Callable[[], Numbers]) -> Numbers:
        wrong = 1 + UNITS * torch.finfo(dtype).eps
        return {name: value * wrong if name.endswith(number) else value for name, value in by_reference(call).items()}

    if (subject.mechanism, dtype, number) in MOVED:
        pytest.skip("rounding to bfloat16 moves maxima to other places, and their gradients with them")
    if (subject.mechanism, number) == ("gct", ".weight"):
        pytest.skip("every term of the sums of squares rounds, so more than 16 units are allowed")
    module = subject.module(24, dtype=dtype).eval()
    if number == ".weight" and not module.state_dict():
        pytest.skip("it has no weights")
    found = faults(steps(module, lambda seed: draw(3, 24, 9, 5, dtype=dtype, seed=seed), run=run))
    assert found
    assert all(fault.partition(":")[0].endswith(number) for fault in found)
