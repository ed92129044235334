"""Right and wrong calls: every error says what was expected, what was received and what to do."""

import dataclasses
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import foveate
from foveate.errors import ReductionWarning, UsageError
from foveate.facts import facts
from foveate.mechanisms import catalogue, create, names
from foveate.mechanisms.eca import ECA
from foveate.spec import hidden_units
from last_layers import wake
from subjects import Subject

NAN, INFINITY = float("nan"), float("inf")
REDUCING = ["se", "channel", "cbam", "coordinate", "residual_cbam"]
# The wrong values of options by the option's type, in every mechanism that has one; [[refuse]] in a TOML has others.
WRONG_VALUES: dict[tuple[str | None, Any], tuple[Any, ...]] = {
    ("reduction", float): (0, -4, NAN, INFINITY, True, "16", None),
    (None, bool): ("no", 1, None),
}
WRONG_NAMES: list[tuple[str, dict[str, Any], str]] = [
    ("se", {"reducton": 16}, "did you mean 'reduction'"),
    ("cbam", {"kernel": 7}, "did you mean 'kernel_size'"),
    ("spatial", {"qqq": 7}, "choose one of: kernel_size, norm, bias"),
    ("se", {"paper": "mine"}, "an option of se"),
    ("se", {"start": "zero"}, "Expected start as one of 'paper', 'identity'"),
]


def wrong_values() -> Iterator[tuple[str, dict[str, Any], str]]:
    for name, kind in catalogue().items():
        for option in dataclasses.fields(kind):
            for (only, hint), values in WRONG_VALUES.items():
                if option.type is hint and only in (None, option.name):
                    yield from ((name, {option.name: value}, option.name) for value in values)


RIGHT = [(name, options) for name in names() for options in facts(name).get("try", ())]
REFUSED = [(name, one["options"], one["message"]) for name in names() for one in facts(name).get("refuse", ())]
WRONG = [*REFUSED, *wrong_values(), *WRONG_NAMES]


@pytest.mark.parametrize("name", names())
def test_the_defaults_are_the_authors(name: str) -> None:
    """Compare every option with the TOML, where options that are None are left out."""
    found = {option: value for option, value in create(name).options().items() if value is not None}
    assert {option: [*v] if isinstance(v, tuple) else v for option, v in found.items()} == facts(name).get(
        "defaults", {}
    )


def test_a_channel_of_zeros_has_a_gradient_under_the_euclidean_pooling() -> None:
    x = torch.zeros(1, 16, 3, 3, requires_grad=True)
    module = foveate.attention("channel", 16, pools="lp")
    module(x).sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in (x, *module.parameters()))


@pytest.mark.parametrize(("name", "options"), RIGHT, ids=str)
def test_right_options(name: str, options: dict[str, Any]) -> None:
    subject = Subject(name, options)
    module = foveate.attention(create(name, **options), 2 * subject.channels).eval()
    x, *context = subject.inputs()
    assert module(torch.cat([x, x], 1), *context).isfinite().all()


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=str)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)(?=.*{re.escape(message)})Expected .*\nReceived .*\nDo: ."):
        foveate.attention(name, 2 * Subject(name).channels, **options)


@pytest.mark.parametrize("channels", [0, -1, 2.5, True, "8", None, NAN])
@pytest.mark.parametrize("name", names())
def test_wrong_channels(name: str, channels: Any) -> None:
    with pytest.raises(UsageError, match=r"channels as a whole number >= 1\nReceived .*\nDo: "):
        foveate.attention(name, channels)


@pytest.mark.parametrize("name", [name for name in names() if facts(name).get("smallest", 1) > 1])
def test_a_map_below_the_smallest_is_refused_with_its_size(name: str) -> None:
    module, side = Subject(name).module(), Subject(name).smallest
    for h, w in ((side - 1, side), (side, side - 1)):
        with pytest.raises(UsageError, match=rf"at least {side} x {side} .*{name}\nReceived one of {h} x {w}\nDo: ."):
            module(torch.zeros(1, Subject(name).channels, h, w))


@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
@pytest.mark.parametrize("name", names())
def test_every_width_works_or_is_refused_with_what_would_work(name: str) -> None:
    side, advice = Subject(name).smallest, list[str]()
    for channels in (1, 2, 3, 6, 7, 12, 33):
        try:
            module = foveate.attention(name, channels)
        except UsageError as error:
            advice.append(error.do)
            continue
        assert module.train()(torch.randn(2, channels, side + 1, side + 2)).isfinite().all()
    assert all(re.search(r"\bpass \w+=|\buse it on ", do) for do in advice)


@pytest.mark.parametrize(("wrong", "nearest"), [("cbma", "cbam"), ("coord", "coordinate"), ("spacial", "spatial")])
def test_an_unknown_name_suggests_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"Received '{wrong}'\nDo: .*{nearest}"):
        foveate.attention(wrong, 8)


@pytest.mark.parametrize("name", [None, 3, ["se"], create])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="Expected a mechanism: its name"):
        foveate.attention(name, 8)


def test_a_name_like_no_other_lists_them_all() -> None:
    with pytest.raises(UsageError, match=f"choose one of: {', '.join(names())}"):
        foveate.attention("xyzzy", 8)


def test_a_mechanism_takes_the_place_of_its_name() -> None:
    module = foveate.attention(create("cbam", reduction=4), 8, order="parallel")
    assert module.mechanism == create("cbam", reduction=4, order="parallel")


def test_an_identity_start_needs_equal_channels() -> None:
    with pytest.raises(UsageError, match="identity start"):
        foveate.attention("residual_cbam", 8, out_channels=12, start="identity")


def test_an_identity_start_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"(?s)CrossAttention.*has none: a ReLU.*Do: pass start=\"paper\""):
        foveate.attention("cross", 8, activation="relu", start="identity")


def test_a_second_input_of_the_wrong_shape_is_refused() -> None:
    module = foveate.attention("cross", 8, context_channels=4)
    with pytest.raises(UsageError, match=r"\(N, 4, H, W\)"):
        module(torch.zeros(2, 8, 3, 3), torch.zeros(2, 5, 3, 3))
    with pytest.raises(UsageError, match=r"a context \(N, D, H, W\)"):
        module(torch.zeros(2, 8, 3, 3), torch.zeros(4, 3, 3))
    with pytest.raises(UsageError, match="as many samples as the first"):
        module(torch.zeros(1, 8, 3, 3), torch.zeros(2, 4, 3, 3))
    with pytest.raises(UsageError, match="second input"):
        module(torch.zeros(2, 8, 3, 3))


def test_a_context_may_be_named_and_only_some_take_one() -> None:
    x, y = torch.randn(2, 8, 3, 3), torch.randn(2, 4, 3, 3)
    module = foveate.attention("cross", 8, context_channels=4)
    assert torch.equal(module(x, context=y), module(x, y))
    alone: Any = foveate.attention("se", 8, reduction=2)
    with pytest.raises(UsageError, match="one input for SE"):
        alone(x, context=x)


def test_an_input_that_is_no_tensor_is_refused() -> None:
    array: Any = np.zeros((2, 8, 3, 3), np.float32)
    with pytest.raises(UsageError, match="Received a ndarray"):
        foveate.attention("eca", 8)(array)
    with pytest.raises(UsageError, match="Received a ndarray"):
        foveate.attention("cross", 8)(torch.zeros(2, 8, 3, 3), array)


@pytest.mark.parametrize("name", REDUCING)
def test_a_reduction_that_leaves_nothing_keeps_one_unit_and_says_so(name: str) -> None:
    options: dict[str, Any] = {"min_hidden": 0} if name == "coordinate" else {}
    with pytest.warns(ReductionWarning, match="reduction 64 leaves no hidden unit for 8 channels; using 1"):
        foveate.attention(name, 8, reduction=64, **options)


@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
def test_global_context_keeps_two_units_because_one_would_be_normalised_to_zero() -> None:
    with pytest.warns(ReductionWarning, match="reduction 16 leaves too few hidden units for 16 channels; using 2"):
        module = foveate.attention("global_context", 16)
    wake(module)
    x = torch.randn(16, 16, 1, 1, generator=torch.Generator().manual_seed(0))
    assert (module(x) - x).std(0).max() > 0.01  # what is added depends on the sample


@pytest.mark.parametrize(
    ("channels", "reduction", "units"),
    [(64, 16, 4), (40, 16, 2), (16, 16, 1), (16, 0.5, 8), (17, 0.5, 8), (3, 1, 3), (48, 2.5, 19), (10, 0.25, 2)],
)
def test_hidden_units(channels: int, reduction: float, units: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hidden_units(channels, reduction) == units


def test_eca_takes_the_papers_adaptive_kernel() -> None:
    table = {1: range(1, 8), 3: range(8, 128), 5: range(128, 2048), 7: [2048, 4096]}
    assert {c: ECA().kernel(c) for widths in table.values() for c in widths} == {
        c: k for k, widths in table.items() for c in widths
    }


def test_eca_takes_a_given_kernel_at_any_width() -> None:
    assert {ECA(kernel_size=5).kernel(c) for c in (1, 8, 4096)} == {5}


@pytest.mark.parametrize("name", ["spatial", "cbam"])
def test_a_single_value_cannot_be_normalised_in_training(name: str) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        foveate.attention(name, 16)(torch.zeros(1, 16, 1, 1))
    assert foveate.attention(name, 16).eval()(torch.zeros(1, 16, 1, 1)).shape == (1, 16, 1, 1)
