"""Each planted mistake must make a test fail."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import test_determinism, test_forms, test_golden, test_layouts, test_memory, test_numbers, test_values
from kernels.cases import OPERATIONS, VIEWS, Layout, Subject, replaced
from kernels.test_golden import CASES

pytestmark = pytest.mark.usefixtures("built")

Change = Callable[[str, Any], Any]
SHAPE, NCHW, F32 = (3, 24, 9, 5), "nchw", torch.float32


def given(*forms: str, **wrong: Callable[[Any], Any]) -> Change:
    """Replace arguments of those forms, by name; x and dy come before the others."""

    def change(name: str, run: Any) -> Any:
        def call(*args: Any) -> Any:
            operation = next(operation for operation in OPERATIONS if name.startswith(f"{operation.name} "))
            split = 3 if name.endswith(" backward") else 1
            before, rest = list(args[:split]), operation.signature(*args[split:])
            if "x" in wrong:
                before[-1] = wrong["x"](before[-1])
            if "dy" in wrong:
                before[0] = wrong["dy"](before[0])
            fields = {field: function(rest) for field, function in wrong.items() if field not in ("x", "dy")}
            return run(*before, *rest._replace(**fields))

        return call if name.split()[1] in forms else run

    return change


def returned(form: str, *wrong: Callable[[Tensor], Tensor]) -> Change:
    """Replace the first results of a form."""

    def change(name: str, run: Any) -> Any:
        def call(*args: Any) -> Any:
            results = run(*args)
            return *(function(result) for function, result in zip(wrong, results, strict=False)), *results[len(wrong) :]

        return call if name.split()[1] == form else run

    return change


def same(result: Tensor) -> Tensor:
    return result


def numbers(mechanism: str, training: bool = False, start: str = "paper", **options: Any) -> Callable[[], None]:
    return lambda: test_numbers.check(Subject(mechanism, options), SHAPE, NCHW, F32, training, start)


def golden(name: str) -> Callable[[], None]:
    return lambda: test_golden.test_a_kernel_computes_what_the_authors_compute(
        next(case for case in CASES if str(case) == name)
    )


def tied(subject: Subject, layout: Layout = NCHW) -> Callable[[], None]:
    return lambda: test_values.test_equal_maxima_share_the_gradient(
        (subject, F32), layout, test_values.TIED["after a ReLU"]
    )


def spoilt() -> None:
    test_values.test_what_is_not_finite_passes(Subject("cbam"), NCHW, F32, test_values.SPOILT["a NaN"])


def layout() -> None:
    test_layouts.test_the_output_keeps_the_layout(Subject("se"), "channels_last", F32, SHAPE)


def view() -> None:
    test_layouts.test_views_as_input(Subject("se"), NCHW, F32, VIEWS["rows and columns exchanged"])


def repeated() -> None:
    test_determinism.test_repeated_runs_are_bit_equal(Subject("se"), NCHW, (1, 64, 28, 28), 1)


def memory() -> None:
    test_memory.test_backward_keeps_little_more_than_the_input(Subject("se"), (2, 2048, 7, 7), NCHW, "paper", False)


def in_place() -> None:
    test_forms.test_in_place_is_the_same_and_touches_nothing_else(
        Subject("se"), (NCHW, F32), test_forms.PLACES["all of it"]
    )


def gates() -> None:
    test_forms.test_the_gates_are_the_ones_that_scale(Subject("se"), (NCHW, F32))


def one_maximum(x: Tensor) -> Tensor:
    """Return nearly x, without equal values."""
    return x + 1e-6 * torch.arange(x.numel()).view(x.shape)


def as_nchw(x: Tensor) -> Tensor:
    """Return the values of x in memory order, read as NCHW."""
    return x.as_strided(x.shape, torch.empty(x.shape).stride())


BOTH = ("full", "backward")
MEAN: dict[str, Callable[[Any], Any]] = {"average": lambda a: True, "maximum": lambda a: False}
MISTAKES: list[tuple[str, Change, Callable[[], None]]] = [
    ("max is a mean", given("full", **MEAN), numbers("channel", pools=("max",))),
    ("max is a mean, golden", given(*BOTH, **MEAN), golden("cbam-channel_max_only-case0")),
    ("a dropped scale", given(*BOTH, scale=lambda a: 1.0), numbers("cbam", start="identity")),
    ("a dropped bias", given("full", expand_bias=lambda a: torch.zeros_like(a.expand_bias)), numbers("se")),
    ("rows for columns", given(*BOTH, conv=lambda a: a.conv.transpose(2, 3).contiguous()), numbers("spatial")),
    (
        "rows for columns, coordinate",
        given("full", row=lambda a: a.column, column=lambda a: a.row),
        numbers("coordinate"),
    ),
    ("[mean, max]", given(*BOTH, conv=lambda a: a.conv.flip(1)), golden("cbam-default-case0")),
    ("a sigmoid for a hard sigmoid", given(*BOTH, hard=lambda a: False), numbers("ese")),
    (
        "inputs for outputs of the one layer",
        given("backward", expand=lambda a: a.expand.transpose(0, 1).contiguous()),
        numbers("ese"),
    ),
    ("another sum of squares", given(*BOTH, pool_eps=lambda a: 1.0), numbers("gct")),
    ("the deviation for the mean", given(*BOTH, reduce=lambda a: a.reduce.flip(2)), numbers("srm", True)),
    ("a norm without its weight", given("backward", norm_weight=lambda a: a.norm_bias), numbers("srm", True)),
    ("reversed weights along the channels", given(*BOTH, reduce=lambda a: a.reduce.flip(2)), numbers("eca")),
    ("both gates of x", given(*BOTH, parallel=lambda a: True), numbers("cbam")),
    ("a dropped bias over the channels", given("full", conv_bias=lambda a: torch.zeros(1)), numbers("scse")),
    ("a layer over mirrored channels", given(*BOTH, conv=lambda a: a.conv.flip(1)), numbers("scse")),
    ("a variance without its summand", given(*BOTH, pool_eps=lambda a: 0.0), numbers("simam", e_lambda=0.1)),
    ("relu for hard-swish", given("full", hardswish=lambda a: False), numbers("coordinate")),
    ("another eps", given(*BOTH, eps=lambda a: 1e-3), numbers("coordinate")),
    (
        "the biased variance",
        returned("full", same, same, lambda s: s * torch.tensor([[1.0], [1 - 1 / 135]])),
        numbers("spatial", True),
    ),
    ("a shifted gradient", given("backward", dy=lambda dy: dy.roll(1, 3)), numbers("se")),
    ("a maximum not found again", given("backward", x=one_maximum), tied(Subject("channel"))),
    ("one of several maxima takes all", given("backward", x=one_maximum), tied(Subject("spatial"))),
    ("a lost last column", returned("backward", lambda dx: dx * (torch.arange(5) < 4)), numbers("coordinate")),
    ("a lost gradient of a weight", returned("backward", same, torch.zeros_like), numbers("cbam", True)),
    ("rounding to bfloat16", returned("full", lambda y: y.bfloat16().float()), numbers("se")),
    ("four units in the last place", returned("full", lambda y: y * (1 + 5e-7)), numbers("se")),
    ("a swallowed NaN", given("full", x=torch.nan_to_num), spoilt),
    ("a layout lost", returned("full", Tensor.contiguous), layout),
    ("a view read as a whole", given("full", x=as_nchw), view),
    ("noise", returned("full", lambda y: y + 1e-6 * torch.randn_like(y)), repeated),
    (
        "a second copy of x kept",
        returned("full", same, lambda kept: torch.cat([kept, torch.zeros(2 * 2048 * 49)])),
        memory,
    ),
    ("in place, but of a copy", given("inplace", x=torch.clone), in_place),
    ("gates without their scale", given("gates", scale=lambda a: 1.0), gates),
]


@pytest.mark.parametrize(("mistake", "check"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_found(mistake: Change, check: Callable[[], None]) -> None:
    check()
    with replaced(mistake), pytest.raises(AssertionError):
        check()
