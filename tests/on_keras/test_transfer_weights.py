"""Torch and Keras compute the same after a transfer of weights in either direction."""

from typing import Any, cast

import keras
import numpy as np
import pytest
import torch

import foveate
import foveate.keras as fk
from foveate.bind import states
from foveate.bind.keras.layer_weights import load_state, state
from foveate.errors import UsageError
from foveate.facts import facts
from foveate.mechanisms import names
from foveate.surgery.core.transfer import transfer_weights
from on_keras.steps import forward
from on_keras.test_golden import FORMATS, to_format, to_nchw
from subjects import Subject
from thinned import thinned

SIZES = [(1, 1, 1, 1), (2, 1, 1, 6), (1, 2, 7, 7), (2, 1, 9, 5), (3, 2, 8, 8), (1, 2, 12, 3)]


def settings(name: str) -> list[dict[str, Any]]:
    """Return options to compare: those of its tests, and those of its TOML."""
    known = facts(name)
    first = known.get("test", {}).get("options", {})
    return [first, *({**first, **options} for options in known.get("try", ()))]


OPTIONS_EACH, SHAPES_EACH, DRAWS = 3, 1, 10
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def drawn(module: Any, seed: int = 0) -> Any:
    """Return the torch module with random weights and statistics."""
    torch.manual_seed(seed)
    for value in module.state_dict().values():
        if value.ndim > 1:
            value.normal_(0, value[0].numel() ** -0.5)
        elif value.is_floating_point():
            value.uniform_(0.2, 1.2)
    return module


def pair(name: str, options: dict[str, Any], start: Any, data_format: Any, channels: int) -> tuple[Any, Any]:
    """Return a torch module with random weights, and a Keras layer for the same maps."""
    module = drawn(foveate.attention(name, channels, start=start, **options))
    layer = fk.attention(name, start=start, data_format=data_format, **options)
    context = module.mechanism.options().get("context_channels")
    widths = [channels] if context is None else [channels, context]
    last = data_format == "channels_last"
    layer.build(*((None, None, None, width) if last else (None, width, None, None) for width in widths))
    return module, layer


def difference(module: Any, run: Any, data_format: str, *shapes: tuple[int, ...], seed: int = 1) -> float:
    """Return the largest difference between a torch module and a Keras layer, divided by the largest value."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    with torch.no_grad():
        want = module.eval()(*inputs).numpy()
    got = to_nchw(run(*(np.ascontiguousarray(to_format(x.numpy(), data_format)) for x in inputs)), data_format)
    return float(np.abs(got - want).max() / np.abs(want).max())


@thinned(2, name=names(), number=range(OPTIONS_EACH), data_format=FORMATS, start=("paper", "identity"))
@pytest.mark.reliability(3)
def test_torch_and_keras_agree(name: str, number: int, data_format: str, start: str) -> None:
    options = settings(name)[number % len(settings(name))]
    subject = Subject(name, options)
    if start == "identity":
        subject.module(start=start)  # skips a mechanism that has none
    more = facts(name).get("smallest", 1) - 1
    for place in range(SHAPES_EACH):
        n, times, h, w = SIZES[(number + 3 * place + 2 * (start == "identity")) % len(SIZES)]
        channels, context = times * 2 * subject.channels, subject.made.options().get("context_channels")
        shapes = [(n, channels, h + more, w + more), *([] if context is None else [(n, context, 2, 3)])]
        module, layer = pair(name, options, start, data_format, channels)
        run = forward(layer)
        for draw in range(DRAWS):
            transfer_weights(drawn(module, draw), layer)
            assert difference(module, run, data_format, *shapes, seed=draw) < 1e-5
        other = foveate.attention(module.mechanism, channels, start=module.start)
        transfer_weights(layer, other)
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                np.testing.assert_allclose(other.state_dict()[key].numpy(), value.numpy(), rtol=1e-6)


def test_the_cases_are_enough() -> None:
    """Compare 50 random modules of each mechanism, in both formats, in the fast half of the tests."""
    assert OPTIONS_EACH * 2 * SHAPES_EACH * DRAWS * len(FORMATS) / 2 >= 50


def test_a_carried_mistake_is_seen() -> None:
    module, layer = pair("spatial", {}, "paper", "channels_last", 16)
    transfer_weights(module, layer)
    weights = state(layer)
    load_state(layer, {**weights, "conv.weight": weights["conv.weight"].swapaxes(2, 3)})
    assert difference(module, forward(layer), "channels_last", (2, 16, 6, 5)) > 1e-4


def test_from_keras_to_keras_and_torch_to_torch() -> None:
    module, layer = pair("cbam", {"reduction": 4}, "identity", "channels_last", 16)
    transfer_weights(module, layer)
    first, other = pair("cbam", {"reduction": 4}, "identity", "channels_first", 16)
    transfer_weights(layer, other)
    assert difference(module, forward(other), "channels_first", (2, 16, 6, 5)) < 1e-5
    transfer_weights(module, first)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in first.state_dict().items())


def se(channels: int = 16, reduction: int = 4) -> tuple[Any, Any]:
    return pair("se", {"reduction": reduction}, "paper", "channels_last", channels)


@pytest.mark.parametrize("turned", [False, True], ids=["to Keras", "to torch"])
@pytest.mark.parametrize(
    ("other", "sites", "said"),
    [
        ({"reduction": 2}, None, "the same attention"),
        ({"channels": 32}, None, "16 channels"),
        ({}, {"x": "y"}, "leave sites out"),
        ({}, ["a"], "leave sites out"),
    ],
)
def test_what_does_not_fit_changes_nothing(other: dict[str, int], sites: Any, said: str, turned: bool) -> None:
    (module, layer), (other_module, other_layer) = se(), se(**other)
    source, target = (layer, other_module) if turned else (module, other_layer)
    before = {name: value.copy() for name, value in states.read(target).items()}
    with pytest.raises(UsageError, match=said):
        transfer_weights(source, target, sites=sites)
    assert all(np.array_equal(value, before[name]) for name, value in states.read(target).items())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: transfer_weights(fk.SE(), se()[0]), "never called"),
        (lambda: transfer_weights(se()[0], fk.SE()), "never called"),
        (lambda: transfer_weights(torch.nn.ReLU(), fk.SE()), "as the source"),
        (lambda: transfer_weights(foveate.attention("eca", 8), keras.layers.ReLU()), "as the target"),
        (lambda: transfer_weights(foveate.attention("eca", 8), 3), "as the target"),
        (lambda: load_state(fk.ECA(), {}), "never called"),
    ],
)
def test_what_does_not_correspond_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_bfloat16"])
def test_half_precision_goes_both_ways(dtype: str) -> None:
    module, _ = se()
    layer = fk.SE(reduction=4, dtype=dtype)
    layer.build((None, None, None, 16))
    transfer_weights(module, layer)
    back = foveate.attention("se", 16, reduction=4)
    transfer_weights(layer, back)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=2**-8, atol=1e-7)
    half = foveate.attention("se", 16, reduction=4, dtype=torch.bfloat16)
    transfer_weights(layer, half)
    load_state(layer, half.state_dict())
    np.testing.assert_array_equal(state(layer)["reduce.weight"], half.state_dict()["reduce.weight"].float().numpy())


def test_from_a_model_to_a_model_by_a_site_map() -> None:
    host = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1)
    )
    foveate.attach(host, "cbam", ["0", "2"], example=(1, 3, 8, 8), start="paper", reduction=4)
    inputs = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(8, 3, padding="same", name="one")(inputs)
    y = keras.layers.Conv2D(8, 3, padding="same", name="two", activation="relu")(y)
    model = fk.attach(keras.Model(inputs, y), "cbam", ["one", "two"], start="paper", reduction=4)
    before = model.get_weights()
    for sites, said in (
        (None, "no counterpart of"),
        (["0", "2"], "sites as a mapping"),
        ({"0": "one"}, "no counterpart of '2', 'two'"),
        ({"0": "one", "2": "one"}, "no counterpart of 'two'"),
    ):
        with pytest.raises(UsageError, match=said):
            transfer_weights(host, model, sites=sites)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="pass the mechanism inside the model"):
        transfer_weights(host.get_submodule("0"), se()[1], sites={"": ""})
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), before, strict=True))
    transfer_weights(host, model, sites={"0": "one", "2": "two"})
    for site, name in {"0": "one", "2": "two"}.items():
        layer = model.get_layer(f"{name}_foveate_attention")
        attention = cast(torch.nn.Module, host.get_submodule(site).foveate_attention)
        assert difference(attention, forward(layer), "channels_last", (2, 8, 5, 6)) < 1e-5
    transfer_weights(model, host, sites={"one": "0", "two": "2"})
