"""Special values: NaN, infinity, equal maxima."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.cases import DEFAULTS, SUBJECTS, Layout, Subject, by_kernel, by_reference, draw, faults, step, steps
from thinned import thinned

pytestmark = pytest.mark.usefixtures("built")

NAN, INFINITY = float("nan"), float("inf")
LAYOUTS: list[Layout] = ["nchw", "channels_last"]
SHAPE = (3, 24, 9, 5)
BOTH = pytest.mark.parametrize("layout", LAYOUTS)
DTYPES = [torch.float32, torch.bfloat16]
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)

SPOILT: dict[str, list[tuple[tuple[int | slice, ...], float]]] = {
    "a NaN": [((1, 3, 4, 2), NAN)],
    "a NaN at the beginning": [((0, 0, 0, 0), NAN)],
    "a NaN at the end": [((-1, -1, -1, -1), NAN)],
    "a channel of NaN": [((1, 3), NAN)],
    "infinity": [((1, 3, 4, 2), INFINITY)],
    "minus infinity": [((1, 3, 4, 2), -INFINITY)],
    "a channel of minus infinity": [((1, 3), -INFINITY)],
    "a position of minus infinity": [((1, slice(None), 4, 2), -INFINITY)],
    "both infinities in a channel": [((1, 3, 4, 2), INFINITY), ((1, 3, 5, 1), -INFINITY)],
    "both infinities at a position": [((1, 3, 4, 2), INFINITY), ((1, 4, 4, 2), -INFINITY)],
    "a NaN beside infinity": [((1, 3, 4, 2), NAN), ((1, 3, 4, 3), INFINITY)],
}


def different(want: Tensor, got: Tensor) -> list[str]:
    """Return the kinds of values in which two maps differ, and whether their finite values differ."""
    kinds = {"NaN": torch.isnan, "infinity": torch.isposinf, "minus infinity": torch.isneginf}
    found = [kind for kind, test in kinds.items() if not torch.equal(test(want), test(got))]
    finite = want.isfinite() & got.isfinite()
    return (
        found if torch.allclose(want[finite], got[finite].double(), rtol=2e-2, atol=2e-2) else [*found, "finite values"]
    )


# The plain operations run in float64: in bfloat16 torch's convolution along channels multiplies a NaN by the weights
# that it pads with.
@thinned(4, subject=SUBJECTS, layout=LAYOUTS, dtype=DTYPES, where=SPOILT)
def test_what_is_not_finite_passes(
    subject: Subject, layout: Layout, dtype: torch.dtype, where: list[tuple[tuple[int | slice, ...], float]]
) -> None:
    module, x = subject.module(SHAPE[1], dtype=dtype).eval(), draw(*SHAPE, dtype=dtype, layout=layout)
    for index, value in where:
        x[index] = value
    got = by_kernel(lambda: module(x))
    assert different(by_reference(lambda: module.double()(x.double())), got) == []


@DTYPE
@BOTH
@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
def test_a_nan_reaches_its_own_gradients_alone(subject: Subject, layout: Layout, dtype: torch.dtype) -> None:
    module = subject.module(SHAPE[1], dtype=dtype).eval()
    x, dy = draw(*SHAPE, dtype=dtype, layout=layout), draw(*SHAPE, dtype=dtype, seed=1)
    x[1, 3, 4, 2] = NAN
    got = by_kernel(lambda: step(module, x, dy))
    want = by_reference(lambda: step(module.double(), x.double(), dy.double()))
    assert [name for name in want if not torch.equal(want[name].isnan(), got[name].isnan())] == []


def signed_zeros(seed: int) -> Tensor:
    x = draw(*SHAPE, seed=seed)
    return torch.where(x.abs() < 1, torch.copysign(torch.zeros(()), x), -x.abs())


# In bfloat16, after a spatial gate that comes first, the rounding of its product decides which maxima are equal.
LOOKING_FOR_MAXIMA = [
    (subject, dtype)
    for subject in SUBJECTS
    for dtype in DTYPES
    if (subject.mechanism in ("spatial", "cbam", "residual_cbam") or "max" in subject.options.get("pools", ("max",)))
    if subject.mechanism not in ("se", "ese", "gct", "srm", "eca", "gather_excite", "scse", "simam", "coordinate")
    if dtype == torch.float32 or subject.options.get("order") != "spatial-channel"
]
TIED: dict[str, Callable[[int], Tensor]] = {
    "whole numbers": lambda seed: draw(*SHAPE, seed=seed).round(),
    "after a ReLU": lambda seed: draw(*SHAPE, seed=seed).relu(),
    "after a ReLU that shut": lambda seed: torch.zeros(SHAPE),
    "one value": lambda seed: draw(1, 1, 1, 1, seed=seed).expand(SHAPE),
    "one value a channel": lambda seed: draw(3, 24, 1, 1, seed=seed).repeat(1, 1, 9, 5),
    "one value a position": lambda seed: draw(3, 1, 9, 5, seed=seed).repeat(1, 24, 1, 1),
    "zeros of both signs": signed_zeros,
}


@thinned(3, case=LOOKING_FOR_MAXIMA, layout=LAYOUTS, inputs=TIED)
def test_equal_maxima_share_the_gradient(
    case: tuple[Subject, torch.dtype], layout: Layout, inputs: Callable[[int], Tensor]
) -> None:
    subject, dtype = case

    def x(seed: int) -> Tensor:
        values = inputs(seed) if seed < 100 else draw(*SHAPE, seed=seed)
        return values.to(dtype).contiguous(
            memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
        )

    assert faults(steps(subject.module(SHAPE[1], dtype=dtype).eval(), x)) == []
