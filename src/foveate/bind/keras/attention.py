"""A mechanism as a native `keras.Layer` with ordinary convolution and batch-norm layers inside."""

import dataclasses
import inspect
from functools import cache
from typing import Any, ClassVar

import keras
from keras import layers

from foveate.bind.keras.ops import OPS
from foveate.bind.keras.parts import PACKAGE, Called, DataFormat, KerasParts
from foveate.checks import check_choice
from foveate.errors import UsageError
from foveate.mechanisms import built_in, describe, make, require, restore
from foveate.parts import Start
from foveate.spec import Mechanism, check_identity, output_shape


@keras.saving.register_keras_serializable(PACKAGE)
class Attention(layers.Layer):
    """A bound mechanism, (N, H, W, C) -> (N, H, W, C) or (N, C, H, W) -> (N, C, H, W).

    `foveate.keras` has one subclass for each built-in mechanism.

    Args:
        mechanism: what the layer computes; the subclasses take its options instead.
        start: "paper" is the published behaviour; "identity" leaves a network's output unchanged before training.
        data_format: "channels_last" (N, H, W, C) or "channels_first" (N, C, H, W); None takes Keras's own setting.
        common: the options of every `keras.Layer`: name, dtype, trainable.
    """

    kind: ClassVar[type[Mechanism]] = Mechanism
    vocabulary: Any = None  # that of its data format, unless recording sets its own

    def __init__(
        self, mechanism: Mechanism, *, start: Start = "paper", data_format: DataFormat | None = None, **common: Any
    ):
        super().__init__(**common)
        check_choice("start", start, ("paper", "identity"))
        self.data_format: DataFormat = keras.config.image_data_format() if data_format is None else data_format  # pyright: ignore[reportAttributeAccessIssue]
        check_choice("data_format", self.data_format, ("channels_last", "channels_first"))
        self.mechanism = mechanism
        self.start: Start = start

    @property
    def takes_context(self) -> bool:
        """Whether the mechanism takes a second map."""
        return type(self.mechanism).takes_context()

    def build(self, inputs_shape: Any, context_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make the parts for the channels C of inputs (N, H, W, C) or (N, C, H, W).

        Raises UsageError for another rank, unknown channels, a context that the mechanism does not take, or an identity
        start where the mechanism has none.
        """
        self._check(inputs_shape, context_shape)
        self.channels: int = inputs_shape[self._axis]
        parts = self.mechanism.parts(self.channels)
        if self.start == "identity":
            check_identity(self.mechanism, parts)
        maker = KerasParts(self.start, self.data_format, self.dtype_policy)
        maker.add(self, parts)
        self.built = True

    def call(self, inputs: Any, context: Any = None, training: bool | None = None) -> Any:
        """Apply the mechanism to maps (N, H, W, C) or (N, C, H, W), and to a context map where it takes one.

        Raises UsageError for another rank or channel count, and for a context that does not fit.
        """
        self._check(inputs.shape, None if context is None else context.shape)
        others = () if context is None else (context,)
        vocabulary = self.vocabulary or OPS[self.data_format]
        return vocabulary.apply(self.mechanism, Called(self, bool(training)), inputs, *others)

    def compute_output_shape(self, inputs_shape: Any, context_shape: Any = None) -> tuple[int | None, ...]:
        """Return the output shape, which follows one of the inputs. Errors as in `call`."""
        self._check(inputs_shape, context_shape)
        shapes = [inputs_shape] if context_shape is None else [inputs_shape, context_shape]
        return output_shape(self.mechanism, shapes, self._axis)

    def why_no_kernel(self, x: Any, training: bool = False) -> str | None:
        """Return why no kernel of Foveate would run on maps x, None where one would; see `foveate.kernels`."""
        if keras.config.backend() != "torch":
            return f"Keras runs on {keras.config.backend()}, and the kernels are torch's"
        if not self.built:
            return "a layer without weights: it was never called"
        from foveate.bind.keras import kernels

        return kernels.why_not(self, x, training)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"start": self.start, "data_format": self.data_format}
        return {**super().get_config(), **own, **self._mechanism_config()}

    def _mechanism_config(self) -> dict[str, Any]:
        return describe(self.mechanism)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Attention":
        """Build the layer again. Raises UsageError where the class of its mechanism is not imported."""
        described = {name: config[name] for name in ("mechanism", "place", "options") if name in config}
        rest = {name: value for name, value in config.items() if name not in described}
        return cls(restore(**described), **rest) if "mechanism" in described else cls(**config)

    @property
    def _axis(self) -> int:
        return OPS[self.data_format].c[0]

    @property
    def _layout(self) -> str:
        return "(N, H, W, C)" if self.data_format == "channels_last" else "(N, C, H, W)"

    def _check(self, shape: Any, context: Any) -> None:
        """Refuse what the layer cannot take, as far as the shapes are known. Raises UsageError."""
        for maps in (shape,) if context is None else (shape, context):
            if len(maps) != 4 or maps[self._axis] is None:
                do = 'pass data_format="channels_first" for (N, C, H, W), or give the input a number of channels'
                if len(maps) in (3, 5):
                    do = "reshape 1-D and 3-D maps around the layer with keras.layers.Reshape, such as (L, 1, C)"
                expected = f"feature maps {self._layout} with a known C"
                raise UsageError(expected=expected, received=f"the shape {tuple(maps)}", do=do)
        if self.built and shape[self._axis] != self.channels:
            raise UsageError(
                expected=f"feature maps {self._layout} of {self.channels} channels",
                received=f"the shape {tuple(shape)}",
                do="use a separate layer for each number of channels",
            )
        if context is None:
            return
        if not self.takes_context:
            raise UsageError(
                expected=f"one input for {type(self.mechanism).__name__}",
                received=f"a context of the shape {tuple(context)} too",
                do="leave it out, or use a mechanism that takes one, such as CrossAttention",
            )
        samples = shape[0], context[0]
        if (
            all(isinstance(count, int) for count in samples) and samples[0] != samples[1]
        ):  # a count may be unknown (None) or symbolic
            raise UsageError(
                expected="a context of as many samples as the first input",
                received=f"the shapes {tuple(shape)} and {tuple(context)}",
                do="repeat the one that has fewer",
            )


COMMON = ("name", "dtype", "trainable", "activity_regularizer", "autocast")


def bind(kind: type[Mechanism], module: str) -> type[Attention]:
    """Return the `Attention` subclass of a mechanism, with the mechanism's class name and the given `__module__`."""
    fields = {field.name for field in dataclasses.fields(kind)}

    def build(
        self: Attention, *, start: Start = "paper", data_format: DataFormat | None = None, **options: Any
    ) -> None:
        common = {name: options.pop(name) for name in list(options) if name not in fields and name in COMMON}
        Attention.__init__(self, make(kind, **options), start=start, data_format=data_format, **common)

    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(kind).parameters.values()]
    _, *common, layer = inspect.signature(build).parameters.values()
    namespace = {
        "kind": kind,
        "__init__": build,
        "_mechanism_config": lambda self: self.mechanism.options(),
        "__doc__": kind.__doc__,
        "__module__": module,
        "__signature__": inspect.Signature([*own, *common, layer]),
    }
    return keras.saving.register_keras_serializable(PACKAGE)(type(kind.__name__, (Attention,), namespace))


def attention(mechanism: str | Mechanism | type[Mechanism], /, **options: Any) -> Attention:
    """Return a mechanism as a `keras.Layer`.

    `mechanism` is a name, a `Mechanism` or its class, also one of your own; `options` are those of the mechanism and of
    `Attention`. Raises UsageError for a name, an option or a value that does not exist.
    """
    common = {name: options.pop(name) for name in list(options) if name in ("start", "data_format", *COMMON)}
    found = require(mechanism, **options)
    bound = classes().get(type(found).__name__)
    if bound is None or bound.kind is not type(found):
        return Attention(found, **common)
    return bound(**common, **found.options())


@cache
def classes() -> dict[str, type[Attention]]:
    """Return the bound class of every built-in mechanism, by class name: the classes of `foveate.keras`."""
    return {kind.__name__: bind(kind, "foveate.keras") for kind in built_in().values()}
