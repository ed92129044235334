"""The Keras binding: a mechanism as a native `keras.Layer` with ordinary convolution and batch-norm layers inside."""

import dataclasses
import inspect
from functools import cache, partial
from typing import Any, ClassVar

import keras
from keras import initializers, layers

from foveate import spec
from foveate.bind.keras_ops import OPS
from foveate.bind.keras_ops import DataFormat as DataFormat
from foveate.errors import UsageError
from foveate.mechanisms import catalogue, create, get
from foveate.spec import Mechanism, Start, check_choice

ops: Any = keras.ops  # whose declared types include None
PACKAGE = "foveate"  # of the names under which Keras saves the classes


@keras.saving.register_keras_serializable(PACKAGE)
class Gate(layers.Layer):
    """x * sigmoid(logits). With the identity start the gate is 1 + blend * (sigmoid - 1), and the scalar `blend` starts at 0."""

    def __init__(self, kind: spec.GateKind, start: Start = "paper", **common: Any):
        super().__init__(**common)
        self.kind, self.start = kind, start
        self.blend = _blend(self) if start == "identity" else None

    def gate(self, logits: Any) -> Any:
        """Return what multiplies the features, of the shape of the logits."""
        gate = ops.sigmoid(logits)
        return gate if self.blend is None else 1 + ops.cast(self.blend, gate.dtype) * (gate - 1)

    def call(self, x: Any, logits: Any) -> Any:
        """Scale x by the gate of logits that broadcast against it."""
        return x * self.gate(logits)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kind": self.kind, "start": self.start}


@keras.saving.register_keras_serializable(PACKAGE)
class Replace(layers.Layer):
    """y in the place of x. With the identity start, x + blend * (y - x), and the scalar `blend` starts at 0."""

    def __init__(self, start: Start = "paper", **common: Any):
        super().__init__(**common)
        self.start = start
        self.blend = _blend(self) if start == "identity" else None

    def call(self, x: Any, y: Any) -> Any:
        """Return y, or the blend of x and y."""
        return y if self.blend is None else x + ops.cast(self.blend, x.dtype) * (y - x)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "start": self.start}


@keras.saving.register_keras_serializable(PACKAGE)
class Pointwise(layers.Conv2D):
    """A 1x1 convolution as a product of matrices: on pooled maps a framework's own convolution takes up to twice as long."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return the product of every position with the kernel (1, 1, inputs, outputs)."""
        last, pooled = self.data_format == "channels_last", tuple(inputs.shape[2:]) == (1, 1)
        if not last and not pooled:
            return super().convolution_op(inputs, kernel)
        _, _, ours, theirs = kernel.shape
        product = ops.reshape(inputs, (-1, ours)) @ ops.reshape(kernel, (ours, theirs))  # ops.matmul makes float32 of float64
        shape = ops.shape(inputs)
        return ops.reshape(product, (*shape[:3], theirs) if last else (shape[0], theirs, 1, 1))


class Parts(layers.Layer):
    """The parts of a mechanism inside another one, by name."""

    def call(self, x: Any) -> Any:
        """Return x: a holder of layers computes nothing."""
        return x


class Called:
    """The parts of one call, with its `training` handed to the norms.

    Keras itself tells inner layers only where it makes the outer call, which `stateless_call` of JAX, for one, does not.
    """

    def __init__(self, holder: Any, training: bool):
        self.holder, self.training = holder, training

    def __getattr__(self, name: str) -> Any:
        """Return a part, by the name it has in the definition."""
        part = getattr(self.holder, name)
        if isinstance(part, Parts):
            return Called(part, self.training)
        return partial(part, training=self.training) if isinstance(part, layers.BatchNormalization) else part


class Attention(layers.Layer):
    """A bound mechanism; maps in, maps of that size out. Subclasses in `foveate.keras` name their mechanism.

    Args:
        start: "paper" is the published behaviour; "identity" leaves a network's output equal at first.
        data_format: "channels_last" (N, H, W, C) or "channels_first" (N, C, H, W); None is Keras's own setting.
        options: the mechanism's, and those of every `keras.Layer`: name, dtype, trainable.
    """

    kind: ClassVar[type[Mechanism]]

    def __init__(self, *, start: Start = "paper", data_format: DataFormat | None = None, **options: Any):
        own = {field.name for field in dataclasses.fields(self.kind)}
        common = {name: options.pop(name) for name in list(options) if name not in own and name in COMMON}
        super().__init__(**common)
        check_choice("start", start, ("paper", "identity"))
        self.data_format: DataFormat = keras.config.image_data_format() if data_format is None else data_format  # pyright: ignore[reportAttributeAccessIssue]
        check_choice("data_format", self.data_format, ("channels_last", "channels_first"))
        self.mechanism = create(self.kind.name, **options)
        self.start: Start = start

    def build(self, inputs_shape: Any, context_shape: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make the parts for the channels of the input. Raises UsageError for another rank, or unknown channels."""
        if len(inputs_shape) != 4 or inputs_shape[self._axis] is None:
            raise UsageError(
                expected=f"feature maps {self._layout} with a known C",
                received=f"the shape {tuple(inputs_shape)}",
                do='pass data_format="channels_first" for (N, C, H, W), or give the input a number of channels',
            )
        self.channels: int = inputs_shape[self._axis]
        self._add(self, self.mechanism.parts(self.channels))
        self.built = True

    def call(self, inputs: Any, context: Any = None, training: bool | None = None) -> Any:
        """Apply the mechanism to feature maps, and to a second one where it takes two. Raises UsageError for another channel count."""
        if inputs.shape[self._axis] != self.channels:
            raise UsageError(
                expected=f"feature maps {self._layout} of {self.channels} channels",
                received=f"the shape {tuple(inputs.shape)}",
                do="use a layer of its own for each number of channels",
            )
        others = () if context is None else (context,)
        return OPS[self.data_format].apply(self.mechanism, Called(self, bool(training)), inputs, *others)

    def compute_output_shape(self, inputs_shape: Any, context_shape: Any = None) -> tuple[int | None, ...]:
        """Return the shape of the output for an input of that shape."""
        outputs = _outputs(self.mechanism.parts(inputs_shape[self._axis]))
        shape = list(context_shape or inputs_shape)
        shape[self._axis] = shape[self._axis] if outputs is None else outputs
        return tuple(shape)

    def why_no_kernel(self, x: Any, training: bool = False) -> str | None:
        """Return why the layer would run as plain operations on maps x, None where a kernel of Foveate's runs; see `foveate.kernels`."""
        if keras.config.backend() != "torch":
            return f"Keras runs on {keras.config.backend()}, and the kernels are torch's"
        if not self.built:
            return "a layer without weights: it was never called"
        from foveate.bind import keras_kernels

        return keras_kernels.why_not(self, x, training)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"start": self.start, "data_format": self.data_format}
        return {**super().get_config(), **own, **self.mechanism.options()}

    @property
    def _axis(self) -> int:
        return OPS[self.data_format].c[0]

    @property
    def _layout(self) -> str:
        return "(N, H, W, C)" if self.data_format == "channels_last" else "(N, C, H, W)"

    def _add(self, holder: layers.Layer, parts: spec.Parts) -> None:
        """Give a holder the built layer of every part, as an attribute of its name."""
        for name, part in parts.items():
            layer = self._layer(name, part)
            if isinstance(layer, Parts):
                with keras.name_scope(layer.name, caller=layer):
                    self._add(layer, part)  # pyright: ignore[reportArgumentType]
                layer.built = True
            setattr(holder, name, layer)

    def _layer(self, name: str, part: Any) -> layers.Layer:
        common: dict[str, Any] = {"name": name, "dtype": self.dtype_policy}
        last = self.data_format == "channels_last"
        match part:
            case spec.Conv(inputs, outputs, kernel, bias):
                draw = _as_torch_draws(inputs * kernel * kernel, bias)
                kind = Pointwise if kernel == 1 else layers.Conv2D
                layer = kind(outputs, kernel, padding="same", data_format=self.data_format, **draw, **common)
                layer.build((None, None, None, inputs) if last else (None, inputs, None, None))
            case spec.ChannelConv(kernel, bias):
                layer = layers.Conv1D(1, kernel, padding="same", data_format="channels_last", **_as_torch_draws(kernel, bias), **common)
                layer.build((None, None, 1))
            case spec.Norm(channels, momentum, eps):
                layer = layers.BatchNormalization(axis=self._axis, momentum=1 - momentum, epsilon=eps, **common)
                layer.build((None, None, None, channels) if last else (None, channels, None, None))
            case spec.Gate(kind):
                layer = Gate(kind, self.start, **common)
            case spec.Replace(inputs, outputs):
                if self.start == "identity" and inputs != outputs:
                    raise UsageError(
                        expected="as many output as input channels for the identity start",
                        received=f"{inputs} in, {outputs} out",
                        do='pass start="paper", or leave out_channels out',
                    )
                layer = Replace(self.start, **common)
            case _:
                layer = Parts(**common)
        return layer


COMMON = ("name", "dtype", "trainable", "activity_regularizer", "autocast")


def bind(kind: type[Mechanism], module: str) -> type[Attention]:
    """Return the `Attention` subclass of a mechanism, to live in `module` under the mechanism's class name."""
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(kind).parameters.values()]
    *common, layer = inspect.signature(Attention).parameters.values()
    signature = inspect.Signature([*own, *common, layer])
    namespace = {"kind": kind, "__doc__": kind.__doc__, "__module__": module, "__signature__": signature}
    return keras.saving.register_keras_serializable(PACKAGE)(type(kind.__name__, (Attention,), namespace))


def attention(mechanism: str | Mechanism, /, **options: Any) -> Attention:
    """Return a mechanism, by its name or itself, as a `keras.Layer`; options as there. Raises UsageError for what does not exist."""
    if isinstance(mechanism, Mechanism):
        mechanism, options = mechanism.name, {**mechanism.options(), **options}
    return classes()[get(mechanism).__name__](**options)


@cache
def classes() -> dict[str, type[Attention]]:
    """Return the bound class of every mechanism of the catalogue, by class name: the classes of `foveate.keras`."""
    return {kind.__name__: bind(kind, "foveate.keras") for kind in catalogue().values()}


def _blend(layer: layers.Layer) -> Any:
    return layer.add_weight(shape=(), initializer="zeros", name="blend")


def _as_torch_draws(fan_in: int, bias: bool) -> dict[str, Any]:
    """Return the arguments of a convolution whose first weights are drawn as torch draws them: uniform within 1 / sqrt(fan_in)."""
    limit = fan_in**-0.5
    return {
        "use_bias": bias,
        "kernel_initializer": initializers.RandomUniform(-limit, limit),
        "bias_initializer": initializers.RandomUniform(-limit, limit),
    }


def _outputs(parts: spec.Parts) -> int | None:
    """Return the channels of the output where a part says so."""
    return next((part.outputs for part in parts.values() if isinstance(part, spec.Replace)), None)
