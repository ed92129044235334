"""Outputs, gradients and statistics of the Triton kernels against float64, and that each comparison can fail."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from foveate.kernels.gpu import cuda_forms, launches
from foveate.kernels.signatures import ChannelSpatial, Coordinate
from kernels.cases import VIEWS, Layout, Subject, draw, faults, step, steps
from kernels.interpreted.by_triton import ON_A_GPU, by_triton

LAYOUTS: list[Layout] = ["nchw", "channels_last"]
FORMS = [(layout, dtype) for layout in LAYOUTS for dtype in (torch.float32, torch.bfloat16)]
SHAPES = [(3, 24, 9, 5), (2, 7, 6, 3)]
CASES = [(*form, training, shape) for training in (True, False) for shape in SHAPES for form in FORMS]
QUICK = [
    Subject("se"),
    Subject("ese"),
    Subject("channel"),
    Subject("channel", {"pools": ("max",), "bias": False, "reduction": 3}),
    Subject("eca"),
    Subject("spatial", {"kernel_size": 3}),
    Subject("cbam", {"kernel_size": 3}),
    Subject("cbam", {"kernel_size": 3, "order": "parallel"}),
    Subject("coordinate"),
]
QUICK_ONE = pytest.mark.parametrize("subject", QUICK, ids=str)


@pytest.mark.parametrize(
    ("subject", "case"),
    [(subject, CASES[(2 * k + k // 2 % 2) % len(CASES)]) for k, subject in enumerate(QUICK)],
    ids=str,
)
def test_a_step(subject: Subject, case: tuple[Layout, torch.dtype, bool, tuple[int, ...]]) -> None:
    layout, dtype, training, shape = case
    module = subject.module(shape[1], dtype=dtype).train(training)
    assert faults(steps(module, lambda seed: draw(*shape, dtype=dtype, layout=layout, seed=seed), run=by_triton)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("place", "form"), list(enumerate(FORMS)))
@pytest.mark.parametrize("subject", ON_A_GPU, ids=str)
def test_a_step_of_every_case(subject: Subject, place: int, form: tuple[Layout, torch.dtype]) -> None:
    layout, dtype = form
    module = subject.module(12, dtype=dtype).train(place % 3 != 0)

    def x(seed: int) -> Tensor:
        return draw(2, 12, 6, 4, dtype=dtype, layout=layout, seed=seed)

    assert faults(steps(module, x, draws=1, run=by_triton)) == []


# 70 channels and 713 positions are no multiple of any tile, and larger than one; one sample is divided into parts.
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
@QUICK_ONE
def test_a_step_with_maps_larger_than_a_tile(subject: Subject, form: tuple[Layout, torch.dtype]) -> None:
    layout, dtype = form
    module = subject.module(70, dtype=dtype)

    def x(seed: int) -> Tensor:
        return draw(1, 70, 23, 31, dtype=dtype, layout=layout, seed=seed)

    assert launches.Map(x(0)).parts(launches.Map(x(0)).tile())[1] > 1
    assert faults(steps(module, x, draws=1, run=by_triton)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "view"), list(zip(LAYOUTS * 5, VIEWS.values(), strict=False)), ids=VIEWS)
@QUICK_ONE
def test_views(subject: Subject, layout: Layout, view: Callable[[Tensor], Tensor]) -> None:
    def x(seed: int) -> Tensor:
        return view(draw(3, 10, 9, 7, layout=layout, seed=seed))

    assert faults(steps(subject.module(x(0).shape[1]), x, draws=1, run=by_triton)) == []


@pytest.mark.slow
@QUICK_ONE
@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (2, 1, 5, 6), (2, 8, 1, 6), (1, 8, 6, 1)], ids=str)
def test_sides_of_one(subject: Subject, shape: tuple[int, ...]) -> None:
    module = subject.module(shape[1]).train(subject.can_train(shape))
    assert faults(steps(module, lambda seed: draw(*shape, seed=seed), draws=1, run=by_triton)) == []


@pytest.mark.slow
@QUICK_ONE
def test_autocast_does_not_reach_the_products_of_backward(subject: Subject) -> None:
    module, x, dy = subject.module(24), draw(3, 24, 9, 5), draw(3, 24, 9, 5, seed=1)
    want = by_triton(lambda: step(module, x, dy))
    with torch.autocast("cpu", torch.bfloat16):
        got = by_triton(lambda: step(module, x, dy))
    assert [name for name in want if not torch.equal(want[name], got[name])] == []


LAUNCHES = {"se": 4, "cbam": 6, "coordinate": 4, "eca": 3, "spatial": 3}  # as docs/design/kernels.md says


@pytest.mark.parametrize(("name", "count"), LAUNCHES.items(), ids=LAUNCHES)
def test_the_launches_of_forward(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(launches, "run_kernel", lambda *args: seen.append(args))
    module, x = Subject(name).module(24).eval(), draw(2, 24, 9, 5)
    with torch.no_grad():
        by_triton(lambda: module(x))
    assert len(seen) == count


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@QUICK_ONE
def test_float16(subject: Subject, layout: Layout) -> None:
    """The kernels of the CPU take no float16, so here the forms are called directly."""
    module, x = subject.module(24), draw(2, 24, 9, 5, dtype=torch.float16, layout=layout)
    calls: list[tuple[str, tuple[Any, ...]]] = []
    original = cuda_forms.FORMS.copy()

    def noted(name: str) -> Callable[..., Any]:
        return lambda *args: calls.append((name, args)) or original[name](*args)

    cuda_forms.FORMS.update({name: noted(name) for name in original})
    try:
        y = by_triton(lambda: module(x.float()))
        y.sum().backward()
    finally:
        cuda_forms.FORMS.update(original)
    (name, (_, *args)), *_ = calls
    half, kept, _ = original[name](x, *args)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), y.detach(), rtol=1e-3, atol=1e-4)
    dx, *_ = original[f"{name}_backward"](torch.ones_like(x), kept, x, *args)
    whole, *_ = original[f"{name}_backward"](torch.ones_like(x).float(), kept, x.float(), *args)
    assert dx.dtype == torch.float16
    torch.testing.assert_close(dx.float(), whole, rtol=2e-3, atol=2e-3)


def found(subject: Subject) -> list[str]:
    shape = (3, 24, 9, 5)
    return faults(steps(subject.module(24), lambda seed: draw(*shape, seed=seed), draws=1, run=by_triton))


CBAM, COORDINATE = Subject("cbam", {"kernel_size": 3}), Subject("coordinate")
KERNELS = {
    "pool": CBAM,
    "layer": CBAM,
    "look": CBAM,
    "convolve": CBAM,
    "scale_map": CBAM,
    "position_sums": CBAM,
    "convolve_back": CBAM,
    "convolve_weights": CBAM,
    "sums_through_maps": CBAM,
    "spread_map": CBAM,
    "product_sums": Subject("channel"),
    "along_channels": Subject("eca"),
    "line_means": COORDINATE,
    "squeeze_lines": COORDINATE,
    "excite_lines": COORDINATE,
    "line_sums": COORDINATE,
    "scale_lines": COORDINATE,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "subject"), KERNELS.items(), ids=KERNELS)
def test_a_kernel_that_does_not_run_is_found(name: str, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    original = launches.run_kernel

    def all_but_one(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> None:
        if kernel.__name__ != name:
            original(kernel, grid, args, constants)

    monkeypatch.setattr(launches, "run_kernel", all_but_one)
    assert found(subject) != []


MISTAKES: dict[str, tuple[Subject, Callable[[Any], Any]]] = {
    "pools exchanged": (Subject("channel", {"pools": ("avg",)}), lambda a: a._replace(average=False, maximum=True)),
    "a lost bias": (Subject("se"), lambda a: a._replace(expand_bias=torch.zeros_like(a.expand_bias))),
    "another order": (CBAM, lambda a: a._replace(parallel=True)),
    "a transposed kernel": (CBAM, lambda a: a._replace(conv=a.conv.transpose(2, 3))),
    "another sigmoid": (Subject("ese"), lambda a: a._replace(hard=False)),
    "another scale": (Subject("eca"), lambda a: a._replace(scale=2 * a.scale)),
    "axes exchanged": (COORDINATE, lambda a: a._replace(row=a.column, column=a.row)),
    "another activation": (COORDINATE, lambda a: a._replace(hardswish=False)),
    "another eps": (COORDINATE, lambda a: a._replace(eps=1e-2)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_found(subject: Subject, change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "coordinate" if subject is COORDINATE else "channel_spatial"
    signature: Any = Coordinate if subject is COORDINATE else ChannelSpatial
    form = cuda_forms.FORMS[name]
    monkeypatch.setitem(cuda_forms.FORMS, name, lambda x, *args: form(x, *change(signature(*args))))
    said = found(subject)
    assert any(line.startswith("y:") for line in said), said
