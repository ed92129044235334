"""Wrong calls of attaching: the messages, and that the host does not change."""

from collections.abc import Callable
from typing import Any

import keras
import pytest
from torch import nn

import foveate
import foveate.keras as fk
from foveate.errors import UsageError
from on_keras.steps import found
from on_keras.test_attach import chain, conv, small

NOTHING: Any = 3  # not a mechanism


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv = keras.layers.Conv2D(8, 3)

    def call(self, x: Any) -> Any:
        return self.conv(x)


class Doubled(keras.Sequential):
    def call(self, *inputs: Any, **options: Any) -> Any:
        return 2 * super().call(*inputs, **options)


class DoubledGraph(keras.Model):
    def call(self, *inputs: Any, **options: Any) -> Any:
        return 2 * super().call(*inputs, **options)


def reshaped() -> Any:
    return chain(keras.layers.Reshape((4, 16, 8), name="site"), keras.layers.Flatten())


def taken() -> Any:
    return chain(conv(), keras.layers.ReLU(name="conv_foveate_attention"))


WRONG: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str]] = {
    "a subclassed model": (Subclassed, lambda m: fk.attach(m, "cbam"), "call the layer in"),
    "a Sequential model with a call of its own": (
        lambda: chain(conv(), kind=Doubled),
        lambda m: fk.attach(m, "eca", "conv"),
        "call the layer in",
    ),
    "a functional model with a call of its own": (
        lambda: DoubledGraph(x := keras.Input((8, 8, 8)), conv()(x)),
        lambda m: fk.attach(m, "eca", "conv"),
        "call the layer in",
    ),
    "no known inputs": (lambda: keras.Sequential([conv()]), lambda m: fk.attach(m, "cbam", "*"), "known inputs"),
    "no model": (keras.layers.ReLU, lambda m: fk.attach(m, "cbam"), "which is not a model"),
    "what a layer is called with": (
        small,
        lambda m: fk.attach(m, "eca", "block2_conv1:input"),
        "changes nothing on the skip",
    ),
    "skips": (small, lambda m: fk.attach(m, "eca", "skip"), "use the model in PyTorch"),
    "a context": (
        small,
        lambda m: fk.attach(m, "cross", "block2_conv1", context=NOTHING),
        r"foveate\.keras\.CrossAttention",
    ),
    "an optimizer": (
        small,
        lambda m: fk.attach(m, "cbam", "block2_conv1", optimizer=keras.optimizers.SGD()),  # pyright: ignore[reportArgumentType]
        "a SGD.*compile the new model with a new one",
    ),
    "no mechanism": (small, lambda m: fk.attach(m, NOTHING), "a mechanism's name"),
    "a pattern that matches nothing": (
        small,
        lambda m: fk.attach(m, "cbam", "block9*"),
        "matches no layer.*'block2_add'",
    ),
    "a type of no layer": (
        small,
        lambda m: fk.attach(m, "eca", keras.layers.Dropout),
        "the type Dropout, which selects none",
    ),
    "a type that is none of layers": (small, lambda m: fk.attach(m, "eca", int), "a layer type.*class 'int'"),
    "a predicate that never holds": (
        small,
        lambda m: fk.attach(m, "eca", lambda *_: False),
        "the predicate, which selects none",
    ),
    "no residual addition": (
        lambda: chain(conv("a"), conv("b"), conv("output")),
        lambda m: fk.attach(m, "eca"),
        "residual addition.*use where='stage'",
    ),
    "several widths at one site": (
        lambda: (
            (x := keras.Input((8, 8, 8)), relu := keras.layers.ReLU(name="relu"))
            and keras.Model(x, relu(keras.layers.Conv2D(4, 1)(relu(x))))
        ),
        lambda m: fk.attach(m, "eca", "relu"),
        "2 calls with 4 and 8 channels",
    ),
    "attention upon attention": (
        lambda: fk.attach(small(), "eca"),
        lambda m: fk.attach(m, "se", reduction=4),
        "detach",
    ),
    "other channels before a sum": (
        small,
        lambda m: fk.attach(m, "residual_cbam", start="paper", out_channels=16),
        "keeps the 8 channels of 'block1_conv2'.*outputs 16",
    ),
    "other channels at the end": (
        lambda: chain(conv()),
        lambda m: fk.plan(m, "residual_cbam", "conv", start="paper", out_channels=16),
        "keeps the 8 channels of 'conv'",
    ),
    "channels that are nowhere": (reshaped, lambda m: fk.attach(m, "eca", "site"), "with an unknown channel axis"),
    "channels in the middle": (
        lambda: chain(conv(), keras.layers.Permute((1, 3, 2), name="site")),
        lambda m: fk.plan(m, "eca", "site"),
        "third axis",
    ),
    "no feature map": (
        lambda: chain(keras.layers.Flatten(name="flat")),
        lambda m: fk.attach(m, "eca", "flat"),
        r"of shape \(1, 512\)",
    ),
    "a name that is taken": (
        taken,
        lambda m: fk.attach(m, "eca", "conv"),
        "a model without a layer 'conv_foveate_attention'",
    ),
}


@pytest.mark.parametrize(("make", "call", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_work_is_refused(make: Callable[[], Any], call: Callable[[Any], Any], said: str) -> None:
    model = make()
    before = found(model)
    with pytest.raises(UsageError, match=f"(?s){said}"):
        call(model)
    assert found(model) == before


def test_what_detach_cannot_build_again_is_refused() -> None:
    class Holder(keras.Model):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

    with pytest.raises(UsageError, match="a Holder with its own call method"):
        fk.detach(Holder(fk.attach(small(), "eca")))


def test_the_verbs_of_each_framework_send_a_model_of_the_other_to_its_own() -> None:
    for verb in (foveate.attach, foveate.plan):
        with pytest.raises(UsageError, match=r"use foveate\.keras\.attach and foveate\.keras\.plan"):
            verb(small(), "se")
    for verb in (fk.attach, fk.plan):
        with pytest.raises(UsageError, match=r"a Sequential of PyTorch\nDo: use foveate\.attach, foveate\.plan"):
            verb(nn.Sequential(nn.Conv2d(3, 8, 3)), "se", "0")
