"""Every layer in Keras's own test harness, and further tests."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

import foveate.keras as fk
from foveate import cost
from foveate.bind.keras.attention import COMMON, Attention, classes
from foveate.bind.keras.parts import Pointwise
from foveate.errors import ReductionWarning, UsageError
from on_keras.steps import numpy
from representatives import REPRESENTATIVES

BACKEND = keras.backend.backend()
CLASSES = {name: kind for name, kind in classes().items() if kind.kind.name in REPRESENTATIVES}
CBAM: Any = fk.CBAM  # untyped, for calls that its types refuse
FORMATS = {"channels_last": (2, 6, 5, 16), "channels_first": (2, 16, 6, 5)}
STARTS = ("paper", "identity")
OPTIONS: dict[str, dict[str, Any]] = {
    "CBAM": {"reduction": 4},
    "SE": {"reduction": 4},
    "ChannelAttention": {"reduction": 4},
}
LAYERS = [(kind, start, data_format) for kind in CLASSES for start in STARTS for data_format in FORMATS]


def made(kind: str, **options: Any) -> Attention:
    return CLASSES[kind](**{**OPTIONS.get(kind, {}), **options})


def picture(data_format: str = "channels_last") -> np.ndarray:
    return np.random.default_rng(0).normal(size=FORMATS[data_format]).astype("float32")


@pytest.mark.parametrize(("kind", "start", "data_format"), LAYERS)
def test_the_harness_of_keras(kind: str, start: str, data_format: str) -> None:
    layer = made(kind, start=start, data_format=data_format)
    layer.build(FORMATS[data_format])
    TestCase().run_layer_test(
        CLASSES[kind],
        init_kwargs={**OPTIONS.get(kind, {}), "start": start, "data_format": data_format},
        input_shape=FORMATS[data_format],
        expected_output_shape=FORMATS[data_format],
        expected_num_trainable_weights=len(layer.trainable_weights),
        expected_num_non_trainable_weights=len(layer.non_trainable_weights),
        expected_num_losses=0,
        supports_masking=False,
        # TensorFlow has no float16 convolution for channels first on a CPU.
        run_mixed_precision_check=(BACKEND, data_format) != ("tensorflow", "channels_first"),
    )


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_parameters_are_counted_as_the_definition_counts_them(name: str) -> None:
    layer = fk.attention(name, start="identity")
    layer.build((None, None, None, 32))
    assert (
        sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
        == cost.measure(layer.mechanism, (1, 32, 8, 8), start="identity").parameters
    )


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kind", CLASSES)
def test_the_identity_start_changes_no_bit(kind: str, data_format: str) -> None:
    x = picture(data_format)
    layer = made(kind, start="identity", data_format=data_format)
    assert np.array_equal(numpy(layer(x)), x)


@pytest.mark.parametrize("kind", CLASSES)
def test_sizes_may_be_unknown(kind: str) -> None:
    inputs = keras.Input((None, None, 16))
    layer = made(kind)
    model: Any = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, None, None, 16)
    for shape in [(1, 9, 4, 16), (3, 5, 7, 16)]:
        x = np.random.default_rng(1).normal(size=shape).astype("float32")
        np.testing.assert_allclose(model.predict(x, verbose=0), numpy(layer(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("policy", "allowed"), [("mixed_bfloat16", 1e-2), ("mixed_float16", 2e-3)])
@pytest.mark.parametrize("kind", CLASSES)
def test_mixed_precision_is_near_float32(kind: str, policy: str, allowed: float) -> None:
    single, layer, x = made(kind), made(kind, dtype=policy), picture()
    wanted, y = numpy(single(x)), layer(x)
    layer.set_weights(single.get_weights())
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert all(weight.dtype == "float32" for weight in layer.weights)
    largest = np.abs(wanted).max()
    assert np.abs(numpy(keras.ops.cast(y, "float32")) - wanted).max() < allowed * largest
    assert np.abs(x - wanted).max() > 4 * allowed * largest  # the effect of the attention is larger than the tolerance


def test_the_format_is_that_of_keras_unless_named() -> None:
    x, before = picture("channels_first"), keras.config.image_data_format()
    try:
        keras.config.set_image_data_format("channels_first")
        layer = fk.SE(reduction=4)
        y = numpy(layer(x))
    finally:
        keras.config.set_image_data_format(before)
    assert (layer.data_format, fk.SE().data_format) == ("channels_first", before)
    last = fk.SE.from_config({**layer.get_config(), "data_format": "channels_last"})
    last.build(FORMATS["channels_last"])
    last.set_weights(layer.get_weights())
    np.testing.assert_allclose(numpy(last(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2), y, rtol=1e-5, atol=1e-6)
    assert fk.SE.from_config(layer.get_config()).data_format == "channels_first"  # whatever Keras's setting is then


RELOAD = """
import json, sys, numpy as np, keras, foveate.keras
model = keras.saving.load_model(sys.argv[1])
print(json.dumps(model.predict(np.load(sys.argv[2]), verbose=0).ravel()[:50].tolist()))
"""


def test_a_saved_model_loads_in_another_process_without_custom_objects(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 16))
    y = inputs
    for kind in CLASSES:
        y = made(kind, start="identity" if kind == "CBAM" else "paper")(y)
    model: Any = keras.Model(inputs, y)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", picture())
    files = [str(tmp_path / "model.keras"), str(tmp_path / "x.npy")]
    command = [sys.executable, "-W", "error::ImportWarning", "-c", RELOAD, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(
        json.loads(done.stdout.splitlines()[-1]), model.predict(picture(), verbose=0).ravel()[:50], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("data_format", FORMATS)
def test_the_identity_start_changes_no_bit_of_a_context(data_format: Any) -> None:
    x, context = picture(data_format), np.flip(picture(data_format)).copy()
    layer = fk.CrossAttention(start="identity", data_format=data_format)
    assert np.array_equal(numpy(layer(x, context)), context)


def test_a_context_is_attended_to() -> None:
    x, context = keras.Input((None, None, 16)), keras.Input((None, None, 8))
    layer = fk.CrossAttention(context_channels=8)
    model: Any = keras.Model([x, context], layer(x, context))
    y = model.predict([picture(), np.ones((2, 3, 4, 8), "float32")], verbose=0)
    assert y.shape == (2, 3, 4, 8)


def test_attention_to_a_single_position_takes_its_value() -> None:
    layer: Any = fk.CrossAttention()
    x = picture()[:, :1, :1]
    np.testing.assert_allclose(numpy(layer(x)), x + numpy(layer.value(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_pointwise_convolution_is_one(data_format: str) -> None:
    layer = Pointwise(3, 1, data_format=data_format)
    layer.build(FORMATS[data_format])
    for x in (
        picture(data_format),
        picture(data_format).mean((1, 2) if data_format == "channels_last" else (2, 3), keepdims=True),
    ):
        last = x if data_format == "channels_last" else x.transpose(0, 2, 3, 1)
        y = last @ numpy(layer.kernel)[0, 0]
        np.testing.assert_allclose(
            numpy(layer(x)), y if data_format == "channels_last" else y.transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: CBAM(reduction=0), "reduction > 0"),
        (lambda: CBAM(start="never"), "start as one of"),
        (lambda: CBAM(data_format="NHWC"), "data_format as one of"),
        (lambda: CBAM(ratio=3), "an option of cbam"),
        (lambda: CBAM()(np.ones((2, 16), "float32")), "feature maps"),
        (lambda: fk.attention("cbma"), "cbam"),
    ],
)
def test_what_does_not_exist_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()


def of_16(kind: str = "SE") -> Attention:
    layer = made(kind)
    layer.build((None, None, None, 16))
    return layer


def maps(*shape: int) -> np.ndarray:
    return np.ones(shape, "float32")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: of_16()(maps(2, 16)), r"with a known C\nReceived the shape \(2, 16\)"),
        (lambda: of_16()(maps(2, 4, 16)), r"the shape \(2, 4, 16\)"),
        (lambda: of_16()(maps(2, 4, 4, 4, 16)), r"the shape \(2, 4, 4, 4, 16\)"),
        (lambda: of_16()(maps(2, 4, 4, 8)), "of 16 channels"),
        (lambda: of_16()(keras.Input((4, 16))), r"the shape \(None, 4, 16\)"),
        (lambda: of_16()(keras.Input((4, 4, 8))), "of 16 channels"),
        (lambda: of_16()(maps(2, 4, 4, 16), maps(2, 4, 4, 16)), "one input for SE"),
        (lambda: made("SE")(maps(2, 4, 4, 16), maps(2, 4, 4, 16)), "one input for SE"),
        (lambda: of_16("CrossAttention")(maps(1, 4, 4, 16), maps(2, 4, 4, 16)), "as many samples"),
        (lambda: of_16("CrossAttention")(maps(2, 4, 4, 16), maps(2, 16)), r"the shape \(2, 16\)"),
        (lambda: of_16("CrossAttention")(maps(2, 4, 4, 16), maps(2, 4, 4, 8)), "a context"),
    ],
)
def test_maps_that_do_not_fit_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wrong()


def test_an_identity_start_needs_the_channels_to_stay() -> None:
    with pytest.raises(UsageError, match="for the identity start"):
        fk.ResidualCBAM(out_channels=8, start="identity").build((None, None, None, 16))


@pytest.mark.parametrize("kind", CLASSES)
def test_the_stub_shows_the_arguments_that_run(kind: str) -> None:
    stub = ast.parse(Path(fk.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    functions = {
        f.name: f.args
        for c in stub.body
        if isinstance(c, ast.ClassDef) and c.name == kind
        for f in c.body
        if isinstance(f, ast.FunctionDef)
    }
    made = {
        argument.arg: ast.literal_eval(value)
        for argument, value in zip(functions["__init__"].kwonlyargs, functions["__init__"].kw_defaults, strict=True)
        if value
    }
    assert {*COMMON, "start", "data_format"} <= made.keys()
    layer = CLASSES[kind](**made)
    called = [argument.arg for argument in functions["__call__"].args + functions["__call__"].kwonlyargs]
    assert called == ["self", "inputs", *(["context"] if layer.takes_context else []), "training"]
    values = {"inputs": picture(), "context": picture(), "training": False}
    layer(**{name: values[name] for name in called[1:]})


def test_a_reduction_that_leaves_nothing_is_reported() -> None:
    with pytest.warns(ReductionWarning, match="using 1"):
        fk.SE()(np.ones((1, 4, 4, 8), "float32"))


@pytest.mark.parametrize("pool", ["avg", "max", "lp", "lse"])
@pytest.mark.parametrize("scale", [0.0003, 300, 600])
def test_pooling_large_maps_in_float16(pool: Any, scale: float) -> None:
    """More positions than the largest number of float16, and squares far above it."""
    from foveate.bind.keras.ops import OPS

    F = OPS["channels_last"]
    pooling = {"avg": F.mean, "max": F.max, "lp": F.norm, "lse": F.logsumexp}[pool]
    x = np.random.default_rng(0).random((1, 300, 300, 2)).astype("float32") * np.float32(scale)
    half, exact = pooling(keras.ops.cast(x, "float16"), F.hw), pooling(keras.ops.convert_to_tensor(x), F.hw)
    assert keras.backend.standardize_dtype(half.dtype) == "float16"
    found, expected = (np.asarray(keras.ops.convert_to_numpy(value), "float32") for value in (half, exact))
    np.testing.assert_allclose(found, np.minimum(expected, 65504), rtol=2e-3)
