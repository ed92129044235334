"""What surrounds attention in one pass, activation(attention(before(x)) + shortcut), against float64 and torch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate import kernels
from foveate.kernels import finish
from foveate.kernels.finish import NONE, Activation
from foveate.surgery.torch.inference import Finished
from kernels.cases import DEFAULTS, SUBJECTS, Subject
from kernels.test_determinism import threads
from tolerance import error

TORCH: dict[str, Any] = {
    "none": lambda x, slope: x,
    "relu": lambda x, slope: F.relu(x),
    "relu6": lambda x, slope: F.relu6(x),
    "leaky_relu": F.leaky_relu,
    "silu": lambda x, slope: F.silu(x),
    "hardswish": lambda x, slope: F.hardswish(x),
}
SHAPES = [(1, 12, 5, 7), (3, 20, 17, 4)]
FORMATS = [torch.contiguous_format, torch.channels_last]
LIMIT = {torch.float32: 3e-6, torch.bfloat16: 1e-2}  # of the largest value


def maps(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    one, other = (4 * torch.randn(shape, generator=generator) for _ in range(2))
    return tuple(x.to(dtype).contiguous(memory_format=layout) for x in (one, other))  # type: ignore[return-value]


def check(
    subject: Subject | None,
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: Any,
    adds: bool = True,
    before: str = "none",
) -> None:
    x, shortcut = maps(shape, dtype, layout)
    module = subject.module(shape[1], dtype=dtype).eval().requires_grad_(False) if subject else None
    with kernels.using("reference"), torch.no_grad():
        exact = subject.module(shape[1]).double().eval() if subject else nn.Identity()
        y = exact(TORCH[before](x.double(), 0.2).to(dtype).double())
    wanted = TORCH[name](y + shortcut.double() if adds else y, 0.1)
    given, version = x.clone(memory_format=torch.preserve_format), x.clone(memory_format=torch.preserve_format)
    added, after = shortcut if adds else None, Activation(name, 0.1)
    if module is None:
        found = finish.add(given, added, after)
    else:
        found = finish.attend(module.mechanism, module, given, Activation(before, 0.2), added, after)
    assert found is given, "no kernel ran"
    assert given._version == version._version + 1
    assert float((given.double() - wanted).abs().max()) <= LIMIT[dtype] * float(wanted.abs().max())


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("subject", [None, Subject("se"), Subject("coordinate")], ids=str)
def test_every_activation(name: str, subject: Subject | None) -> None:
    for shape in SHAPES:
        for layout in FORMATS:
            check(subject, name, shape, torch.float32, layout)


@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_every_kernel_with_and_without_a_shortcut(subject: Subject, dtype: torch.dtype) -> None:
    for layout in FORMATS:
        check(subject, "relu", SHAPES[1], dtype, layout)
        check(subject, "relu6", SHAPES[0], dtype, layout, adds=False)


@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_the_activation_before_every_kernel(subject: Subject, dtype: torch.dtype) -> None:
    for layout in FORMATS:
        check(subject, "relu", SHAPES[1], dtype, layout, before="silu")
        check(subject, "none", SHAPES[0], dtype, layout, before="relu6", adds=False)


@pytest.mark.parametrize("before", ["silu", "leaky_relu"])
@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
def test_threads_activate_a_map_once(subject: Subject, before: str) -> None:
    # Three threads share one sample, or take one each; five share 16 rows, which are too few for the last one.
    for shape, number in [((1, 40, 33, 70), 3), ((3, 300, 9, 8), 3), ((1, 60, 16, 90), 5)]:
        for layout in FORMATS:
            with threads(number):
                check(subject, "none", shape, torch.float32, layout, before=before)


@pytest.mark.parametrize("before", TORCH)
def test_every_activation_before_attention(before: str) -> None:
    check(Subject("se"), "none", SHAPES[0], torch.float32, torch.channels_last, before=before)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "silu"])
def test_nan_and_infinity_pass_as_in_torch(name: str) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 7.0]).reshape(1, 6, 1, 1).repeat(1, 4, 1, 3)
    found = finish.add(x.clone(), None, Activation(name, 0.01))
    assert torch.equal(found.nan_to_num(3e38), TORCH[name](x, 0.01).nan_to_num(3e38))  # type: ignore[union-attr]


@pytest.mark.parametrize("subject", [subject for subject in SUBJECTS if subject.mechanism != "srm"][::4], ids=str)
def test_where_no_kernel_can_torch_computes_the_same(subject: Subject) -> None:
    x, shortcut = maps(SHAPES[1], torch.float32, torch.contiguous_format)
    module = Finished(subject.module(x.shape[1]).eval(), Activation("silu"), Activation("relu6"))
    module.eval().requires_grad_(False)
    with kernels.using("reference"):
        before, plain = x.clone(), module(x, shortcut)
        assert torch.equal(x, before), "x was overwritten without a kernel"
    assert error(module(x.clone(), shortcut), plain) < 1e-5  # type: ignore[operator]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x, s: (x, s[:1]),  # another shape, which torch would broadcast
        lambda x, s: (x, s.double()),
        lambda x, s: (x.requires_grad_(), s),
        lambda x, s: (x, s.requires_grad_()),
        lambda x, s: (x.flatten(2), s.flatten(2)),
        lambda x, s: (x[:0], s[:0]),
    ],
)
def test_what_a_kernel_cannot_do_is_left_alone(spoil: Any) -> None:
    x, shortcut = spoil(*maps(SHAPES[1], torch.float32, torch.contiguous_format))
    before = x.detach().clone()
    module = Subject("se").module(SHAPES[1][1]).eval().requires_grad_(False)
    assert finish.add(x, shortcut, Activation("relu")) is None
    assert finish.attend(module.mechanism, module, x, Activation("relu"), shortcut, NONE) is None
    assert torch.equal(x, before)


def test_cbam_with_the_spatial_gate_first_is_two_operations_and_so_no_kernel() -> None:
    x, _ = maps(SHAPES[0], torch.float32, torch.contiguous_format)
    module = Subject("cbam", {"order": "spatial-channel"}).module(12).eval().requires_grad_(False)
    assert finish.attend(module.mechanism, module, x, NONE, None, Activation("relu")) is None


def test_a_shortcut_in_another_layout_and_a_sliced_map() -> None:
    x, shortcut = maps((2, 8, 6, 10), torch.float32, torch.channels_last)
    wide = torch.zeros(2, 8, 6, 20)
    view = wide[..., ::2]
    view.copy_(x)
    found = finish.add(view, shortcut.contiguous(), Activation("relu"))
    assert found is view
    assert torch.equal(view, F.relu(x + shortcut))
    view.copy_(x)
    module = Subject("se").module(8).eval().requires_grad_(False)
    assert finish.attend(module.mechanism, module, view, Activation("silu"), shortcut, NONE) is view
    with kernels.using("reference"):
        assert error(view, module(F.silu(x)) + shortcut) < 1e-5
    assert not wide[..., 1::2].any()
