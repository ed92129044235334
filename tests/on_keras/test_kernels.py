"""On the torch backend, the layers run the kernels of the torch modules, with the results of the plain operations."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate import kernels
from foveate.bind.keras.attention import Attention
from foveate.bind.keras.layer_weights import load_state, state
from kernels.cases import DEFAULTS, SUBJECTS, Subject, by_kernel, by_reference
from on_keras.steps import BACKEND, numpy, step
from on_keras.test_golden import FORMATS, to_format

pytestmark = [
    pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning"),
    pytest.mark.usefixtures("built"),
]
if BACKEND != "torch":
    pytest.skip("the kernels are torch's", allow_module_level=True)

CHANNELS = 24


@pytest.fixture(scope="module")
def built() -> None:
    """Skip without compiled kernels; `tests/kernels` fails where they could be compiled but are missing."""
    from foveate.kernels import ops

    reason = ops.load()
    if reason is not None:
        pytest.skip(f"no kernels: {reason}")


def made(subject: Subject, data_format: Any, start: Any = "identity", **common: Any) -> Attention:
    """Return the layer with every weight and statistic changed from its initial value."""
    module = subject.module(CHANNELS, start=start)
    layer = fk.attention(subject.mechanism, start=module.start, data_format=data_format, **subject.options, **common)
    layer.build(to_format(np.empty((1, CHANNELS, 1, 1)), data_format).shape)
    load_state(layer, {name: value.numpy() for name, value in module.state_dict().items()})
    return layer


def maps(data_format: str, *, seed: int = 0, size: tuple[int, int] = (7, 5)) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(3, CHANNELS, *size)).astype("float32")
    return np.ascontiguousarray(to_format(drawn, data_format))


def numbers(layer: Attention, data_format: str, training: bool) -> dict[str, np.ndarray]:
    """Return the output, every gradient, and the updated statistics; the layer is restored afterwards."""
    before = state(layer)
    y, (of_x,), of_weights = step(layer, [maps(data_format)], maps(data_format, seed=1), training)
    after = {name: value for name, value in state(layer).items() if "running" in name}
    load_state(layer, before)
    return {
        "y": y,
        "gradient of x": of_x,
        **{f"gradient of {name}": value for name, value in of_weights.items()},
        **after,
    }


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_a_kernel_computes_what_the_plain_operations_compute(
    subject: Subject, start: str, data_format: str, training: bool
) -> None:
    layer = made(subject, data_format, start)
    got = by_kernel(lambda: numbers(layer, data_format, training))
    want = by_reference(lambda: numbers(layer, data_format, training))
    assert got.keys() == want.keys()
    greatest = max(np.abs(value).max() for value in want.values())
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        # Gradients that a batch norm cancels, such as that of a bias before it, are rounding noise on both sides.
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-6 * max(greatest, 1), err_msg=name)


@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
def test_statistics_move_only_in_training(subject: Subject) -> None:
    layer = made(subject, "channels_last")
    before = {name: value for name, value in state(layer).items() if "running" in name}
    for training in (False, True):
        found = by_kernel(lambda training=training: numbers(layer, "channels_last", training))
        assert all(np.array_equal(found[name], value) != training for name, value in before.items())


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("subject", DEFAULTS, ids=str)
def test_mixed_precision_runs_kernels(subject: Subject, data_format: str) -> None:
    layer, x = made(subject, data_format, dtype="mixed_bfloat16"), maps(data_format)
    y = by_kernel(lambda: layer(x))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert layer.why_no_kernel(x) is None
    want = by_reference(lambda: layer(x))
    np.testing.assert_allclose(*(numpy(keras.ops.cast(each, "float32")) for each in (y, want)), rtol=0.05, atol=0.05)


def test_a_frozen_norm_uses_its_statistics_in_training() -> None:
    layer = made(Subject("cbam"), "channels_last")
    layer.spatial.norm.trainable = False
    got, want = (run(lambda: numbers(layer, "channels_last", True)) for run in (by_kernel, by_reference))
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-4, atol=1e-5)


def test_a_functional_model_runs_kernels() -> None:
    inputs = keras.Input((None, None, CHANNELS))
    layer = made(Subject("cbam"), "channels_last")
    with kernels.using("cpu"):  # inferring shapes computes nothing, so a missing kernel is no error there
        model = keras.Model(inputs, layer(inputs))
    x = maps("channels_last")
    got, want = (run(lambda: numpy(model(x))) for run in (by_kernel, by_reference))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_removed_part_is_reported() -> None:
    layer = made(Subject("cbam"), "channels_last")
    del layer.channel.expand
    assert "no 'expand'" in str(reason(layer))


class Twice(keras.layers.Conv2D):
    def call(self, inputs: Any) -> Any:
        return keras.ops.multiply(2, super().call(inputs))


def hooked(layer: Attention) -> None:
    layer.spatial.conv.register_forward_hook(lambda module, args, y: 2 * y)


def hooked_before(layer: Attention) -> None:
    layer.channel.gate.register_forward_pre_hook(lambda module, args: None)


def called_otherwise(layer: Attention) -> None:
    conv = layer.spatial.conv
    conv.call = lambda x, call=conv.call: 2 * call(x)


def of_another_class(layer: Attention) -> None:
    layer.spatial.conv.__class__ = Twice


def activated(layer: Attention) -> None:
    layer.channel.reduce.activation = keras.activations.tanh


def of_another_kernel(layer: Attention) -> None:
    layer.channel.reduce = built_conv(layer, 3)


def of_an_even_kernel(layer: Attention) -> None:
    layer.spatial.conv = keras.layers.Conv2D(1, 4, padding="same", use_bias=False)
    layer.spatial.conv.build((None, None, None, 2))


def built_conv(layer: Attention, size: int) -> Any:
    conv = keras.layers.Conv2D(layer.channel.reduce.filters, size, padding="same")
    conv.build((None, None, None, CHANNELS))
    return conv


def renormalised(layer: Attention) -> None:
    layer.spatial.norm = keras.layers.BatchNormalization(renorm=True)
    layer.spatial.norm.build((None, None, None, 1))


def without_scale(layer: Attention) -> None:
    layer.spatial.norm = keras.layers.BatchNormalization(scale=False)
    layer.spatial.norm.build((None, None, None, 1))


def of_another_precision(layer: Attention) -> None:
    layer.spatial.conv.dtype_policy = "mixed_bfloat16"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (hooked, "hooks on a Conv2D"),
        (hooked_before, "hooks on a Gate"),
        (called_otherwise, "hooks on a Conv2D"),
        (of_another_class, "a Twice instead of a Conv2D"),
        (activated, "a convolution was changed"),
        (of_another_kernel, "a convolution was changed"),
        (of_an_even_kernel, "a convolution was changed"),
        (renormalised, "a batch norm was changed"),
        (without_scale, "a batch norm was changed"),
        (of_another_precision, "a Conv2D was changed"),
    ],
)
def test_a_changed_layer_runs_as_it_was_changed(change: Callable[[Attention], None], said: str) -> None:
    layer, x = made(Subject("cbam"), "channels_last", "paper"), maps("channels_last")
    plain = by_kernel(lambda: numpy(layer(x)))
    change(layer)
    assert said in str(reason(layer))
    with kernels.using(None):
        y = numpy(layer(x))
    want = by_reference(lambda: numpy(layer(x)))
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)  # the other half of CBAM still runs its own kernel
    assert change is hooked_before or not np.allclose(y, plain, rtol=1e-5, atol=1e-6)
    with pytest.raises(Exception, match=said), kernels.using("cpu"):
        layer(x)


def reason(layer: Attention) -> str | None:
    with kernels.using(None):
        return layer.why_no_kernel(maps("channels_last"))


def test_reasons() -> None:
    layer = made(Subject("cbam"), "channels_last")
    assert reason(layer) is None
    with kernels.using("off"):
        assert layer.why_no_kernel(maps("channels_last")) == "FOVEATE_KERNELS=off"
    assert "never called" in str(reason(fk.CBAM()))
    assert "no kernel" in str(reason(made(Subject("cross"), "channels_last")))
    with kernels.using(None):
        assert "a single value" in str(layer.why_no_kernel(maps("channels_last", size=(1, 1))[:1], training=True))
