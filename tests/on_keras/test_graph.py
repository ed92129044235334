"""Reading a graph: the layers that end a branch, the channel axes, the calls inside a layer, and the input sizes."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import UsageError
from foveate.surgery.keras.example import shapes
from foveate.surgery.keras.graph import read
from foveate.surgery.keras.layouts import Layouts

layers: Any = keras.layers
ops: Any = keras.ops


def conv(name: str, channels: int = 8, **options: Any) -> Any:
    return layers.Conv2D(channels, 3, padding="same", name=name, **options)


BETWEEN: dict[str, Callable[[Any], Any]] = {
    "twice": lambda y: y * 2,
    "half": lambda y: y / 2,
    "negative": lambda y: -y,
    "sum with a number": lambda y: y + 1,
    "cast": lambda y: ops.cast(ops.cast(y, "float64"), "float32"),
    "copy": ops.copy,
    "no gradient": ops.stop_gradient,
    "clip": lambda y: ops.clip(y, 0, 1),
    "Dropout": layers.Dropout(0.5),
    **{
        name: getattr(ops, name)
        for name in (
            *(
                "relu",
                "relu6",
                "leaky_relu",
                "elu",
                "selu",
                "celu",
                "gelu",
                "silu",
                "hard_silu",
                "sigmoid",
                "hard_sigmoid",
                "log_sigmoid",
            ),
            *("tanh", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "softplus", "softsign", "squareplus"),
        )
    },
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_a_branch_ends_before_scalings_and_activations(between: Callable[[Any], Any]) -> None:
    x = keras.Input((8, 8, 8))
    model = keras.Model(x, x + between(conv("branch")(x)))
    assert [site.name for site in fk.plan(model, "eca").sites] == ["branch"]


def test_a_resized_branch_is_no_residual() -> None:
    x = keras.Input((8, 8, 8))
    deep = conv("deep")(conv("down", strides=2)(x))
    model = keras.Model(x, conv("lateral")(x) + ops.image.resize(deep, (8, 8), data_format="channels_last"))
    with pytest.raises(UsageError, match="residual addition"):
        fk.plan(model, "eca")


FIRST: Any = {"data_format": "channels_first"}
# The layers before the layer "site" in a model with the input (6, 5, 4), and the format and channels at the site; None
# where these are unknown.
LAYOUTS: dict[str, tuple[Callable[[Any], Any], tuple[str, int] | None]] = {
    "nothing but the input": (lambda x: x, ("channels_last", 4)),
    "a first convolution": (lambda x: conv("c", **FIRST)(x), ("channels_first", 8)),
    "a last convolution": (lambda x: conv("c")(x), ("channels_last", 8)),
    "an input that takes no side": (lambda x: layers.Add()([x, conv("c", 6, **FIRST)(x)]), ("channels_first", 6)),
    "a norm of the second axis": (lambda x: layers.BatchNormalization(axis=1)(x), ("channels_first", 6)),
    "Permute": (lambda x: layers.Permute((3, 1, 2))(conv("c")(x)), ("channels_first", 8)),
    "transpose": (lambda x: ops.transpose(conv("c")(x), (0, 3, 1, 2)), ("channels_first", 8)),
    "transpose back": (lambda x: ops.transpose(conv("c", **FIRST)(x), (0, 2, -1, 1)), ("channels_last", 8)),
    "swapaxes": (lambda x: ops.swapaxes(conv("c")(x), 1, -1), ("channels_first", 8)),
    "moveaxis": (lambda x: ops.moveaxis(conv("c")(x), -1, 1), ("channels_first", 8)),
    "a reshape": (lambda x: layers.Reshape((2, 16, 5))(conv("c", **FIRST)(x)[:, :, :, :4]), None),
    "ops.reshape": (lambda x: ops.reshape(conv("c", **FIRST)(x), (-1, 8, 20, 1)), None),
    "a reshape in a sum": (
        lambda x: layers.Add()(
            [conv("c", **FIRST)(x), layers.Reshape((8, 5, 4))(layers.Flatten()(conv("d", **FIRST)(x)))]
        ),
        ("channels_first", 8),
    ),
    "a layer that says nothing": (lambda x: layers.ReLU()(conv("c", **FIRST)(x)), ("channels_first", 8)),
}


@pytest.mark.parametrize(("before", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_where_the_channels_are(before: Callable[[Any], Any], expected: tuple[str, int] | None) -> None:
    x = keras.Input((6, 5, 4))
    model = keras.Model(x, layers.Flatten()(layers.ReLU(name="site")(before(x))))
    if expected is None:
        with pytest.raises(UsageError, match="with an unknown channel axis"):
            fk.plan(model, "eca", "site")
    else:
        assert (read(model).formats["site"], fk.plan(model, "eca", "site").sites[0].shape[1]) == expected


def test_what_follows_a_reshape_tells_where_its_channels_are() -> None:
    x = keras.Input((120,))
    y = layers.ReLU(name="site")(layers.Reshape((6, 5, 4))(x))
    model = keras.Model(x, conv("c", **FIRST)(layers.Permute((3, 1, 2))(y)))
    assert fk.plan(model, "eca", "site").sites[0].shape == (1, 4, 6, 5)


def test_every_axis_is_followed_through_every_order() -> None:
    shape = (2, 3, 4, 5)
    moves = [((a,), (b,)) for a in range(-4, 4) for b in range(-4, 4)] + [
        ((1, 3), (3, 1)),
        ((2, 1), (1, 3)),
        ((0, -1), (-1, 0)),
    ]
    for source, target in moves:
        op = type("Moveaxis", (), {"__module__": "keras.", "source": source, "destination": target})()
        for axis in range(1, 4):
            layouts = Layouts()
            layouts.make(SimpleNamespace(data_format="channels_last" if axis == 3 else "channels_first"), [], 0)
            if axis == 2:
                layouts._stated[0] = 2
            layouts.make(op, [0], 1)
            assert np.moveaxis(np.empty(shape), source, target).shape[layouts.axes()[1]] == shape[axis]


def test_the_convolutions_inside_a_model_are_counted() -> None:
    """A convolution on 1 x 1 maps does not count, as for torch."""

    def block(number: int, start: Any) -> Any:
        x = keras.Input((None, None, 8))
        y = conv("one")(x)
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(y)
        return keras.Model(
            x, conv("two", **start)(y * layers.Conv2D(8, 1, name="squeeze")(pooled)), name=f"block{number}"
        )

    x = keras.Input((16, 16, 8))
    y = block(2, {"strides": 2})(block(1, {})(x))
    model = keras.Model(x, layers.ReLU(name="after")(conv("end")(y)))
    counts = {call.name: call.convolutions for call in read(model).trace.calls}
    assert {name: counts[name] for name in ("block1", "block1/one", "block2", "block2/squeeze", "after")} == {
        "block1": 2,
        "block1/one": 1,
        "block2": 2,
        "block2/squeeze": 1,
        "after": 0,
    }
    assert [site.name for site in fk.plan(model, "eca", "stage").sites] == ["block1", "block2"]


EXAMPLES: list[tuple[Any, list[Any], Any]] = [
    ((None, 32, 32, 3), [(None, None, None, 3)], [(1, 32, 32, 3)]),
    ((1, None, None, 3), [(None, None, None, 3)], [(1, 224, 224, 3)]),
    ((2, None, 9, None), [(None, 8, None, 3)], [(2, 8, 9, 3)]),
    ([1, 32, np.int64(16), 3], [(None, None, None, 3)], [(1, 32, 16, 3)]),
    ([(1, 4), (2, None, 3)], [(None, 4), (None, 5, 3)], [(1, 4), (2, 5, 3)]),
    (None, [(None, None, 3)], [(1, 224, 3)]),
    (3, [(None, None, None, 3)], "Received 3"),
    ((1, -5, 0, 3), [(None, None, None, 3)], "-5"),
    ((1, 8, 8.5, 3), [(None, None, None, 3)], "8.5"),
    ((1, 8, 8, 4), [(None, None, None, 3)], "(1, 8, 8, 4)"),
    ((), [(None, 3)], "Received ()"),
    ("an image", [(None, 3)], "'an image'"),
    ([(1, 4)], [(None, 4), (None, 5, 3)], "'in0': (None, 4), 'in1': (None, 5, 3)"),
    (np.zeros((1, 32, 32, 3)), [(None, None, None, 3)], [(1, 32, 32, 3)]),
    ([(1, 32, 32, 3)], [(None, None, None, 3)], [(1, 32, 32, 3)]),
    ({"in0": (2, 32, 32, 3)}, [(None, None, None, 3)], [(2, 32, 32, 3)]),
    ({"in1": (2, 5, 3), "in0": (2, 4)}, [(None, 4), (None, 5, 3)], [(2, 4), (2, 5, 3)]),
    ({"in0": (2, 4)}, [(None, 4), (None, 5, 3)], "each input, 'in0': (None, 4)"),
    ({"another": (2, 4)}, [(None, 4)], "'in0': (None, 4)"),
]


@pytest.mark.parametrize(("example", "wanted", "whole"), EXAMPLES, ids=lambda value: str(value)[:30])
def test_the_example(example: Any, wanted: Any, whole: Any) -> None:
    tensors = [keras.KerasTensor(shape, name=f"in{place}") for place, shape in enumerate(wanted)]
    inputs = tensors if len(tensors) > 1 else tensors[0]
    if isinstance(whole, str):
        with pytest.raises(UsageError, match="example as the shape") as refused:
            shapes(inputs, example)
        assert whole in str(refused.value)
        assert len(str(refused.value)) < 300
    else:
        assert shapes(inputs, example) == whole


def test_dicts_and_nested_inputs_of_a_model() -> None:
    image, mask, extra = (
        keras.Input((None, None, channels), name=name) for name, channels in (("image", 3), ("mask", 3), ("extra", 8))
    )
    maps = conv("first")(layers.Concatenate()([image, mask]))
    model = keras.Model({"pair": [image, mask], "extra": extra}, layers.Add()([conv("last")(maps), extra]))
    nested = {"pair": [(1, 32, 32, 3), np.zeros((1, 32, 32, 3))], "extra": (1, 32, 32, 8)}
    assert [site.shape for site in fk.plan(model, "eca", "last", example=nested).sites] == [(1, 8, 32, 32)]
    for wrong in ({**nested, "pair": (1, 32, 32, 3)}, {"pair": nested["pair"]}, {**nested, "other": (1, 2)}):
        with pytest.raises(UsageError, match=r"'mask': \(None, None, None, 3\)"):
            fk.plan(model, "eca", "last", example=wrong)
    attached = fk.attach(model, "eca", "last", example=nested)
    arrays = {"pair": [np.ones((1, 8, 8, 3)), np.ones((1, 8, 8, 3))], "extra": np.ones((1, 8, 8, 8))}
    ours, theirs = (ops.convert_to_numpy(each(arrays)) for each in (attached, model))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_maps_of_1_d_and_3_d_networks_are_refused_in_words() -> None:
    one, three = keras.Input((32, 3)), keras.Input((8, 16, 16, 3))
    line = keras.Model(one, layers.Conv1D(8, 3, name="line")(layers.Conv1D(8, 3)(one)))
    volume = keras.Model(three, layers.Conv3D(8, 3, name="volume")(layers.Conv3D(8, 3)(three)))
    for model, name in ((line, "line"), (volume, "volume")):
        with pytest.raises(UsageError, match=f"a site with a 2-D feature map, '{name}'"):
            fk.attach(model, "se", name)
    for shape in ((2, 9, 8), (2, 3, 4, 5, 8)):
        with pytest.raises(UsageError, match=r"keras.layers.Reshape, such as \(L, 1, C\)"):
            fk.attention("eca")(np.zeros(shape, "float32"))
