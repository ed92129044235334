"""YOLOv4-tiny in Keras: the table of `yolov4_tiny_layers` as a functional model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import initializers

from foveate.bind.keras.parts import DataFormat
from foveate.checks import check_choice, check_least
from foveate.detection.heads import Mask, check_mask
from foveate.errors import UsageError
from foveate.models import yolov4_tiny_layers as layers
from foveate.models.darknet_file import Arrays
from foveate.models.yolov4_tiny_layers import ConvSpec
from foveate.parts import Start
from foveate.surgery.keras.attaching import attach

keras_layers: Any = keras.layers
HE = 2 / (1 + layers.SLOPE**2)  # scale of the kernels before a leaky ReLU


def yolov4_tiny(
    input_shape: Sequence[int | None],
    anchors_mask: Mask,
    num_classes: int,
    attention: Any = None,
    *,
    phi: int = 0,
    start: Start = "identity",
    data_format: DataFormat | None = None,
    name: str = "yolov4_tiny",
    **options: Any,
) -> Any:
    """Return YOLOv4-tiny (arXiv 2011.08036) as a functional model: images in 0..1 -> two outputs, coarse and fine.

    The outputs are (N, H / 32, W / 32, A * (5 + num_classes)) and (N, H / 16, W / 16, A * (5 + num_classes)), or
    channels first: for each of A anchors tx ty tw th, objectness and the classes, all before the sigmoid. With 80
    classes, Darknet's COCO weights fit: see `foveate.models.load_darknet`. Layers have the names of
    `foveate.models.YOLOv4Tiny`, with _ for dots.

    Args:
        input_shape: (H, W, C), or (C, H, W) with channels first; C is 3, or 1 for grey images; H and W may be None.
        anchors_mask: the anchors of the coarse and of the fine output, by number: [[3, 4, 5], [1, 2, 3]].
        num_classes: the number of classes.
        attention: a mechanism for the three sites of the neck, or a mapping from "feat1", "feat2" and "up" to one. It
            is attached as `attach(model, ..., where="sites_*")` would.
        phi: 1 to 4 for the attention se, cbam, eca or coordinate, as in other YOLO repositories.
        start: "identity" leaves the outputs equal at first, so that trained weights stay valid; "paper" is the
            published behaviour.
        data_format: "channels_last" or "channels_first"; None is Keras's own setting.
        name: the model's.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: an invalid shape, mask, site, mechanism, option or number.
    """
    check_least("num_classes", num_classes, 1)
    chosen = layers.placed(attention, phi, options)
    mask = check_mask(anchors_mask)
    build = _Build({}, keras.config.image_data_format() if data_format is None else data_format)
    shape, channels = _checked(input_shape, build.axis)
    convs = layers.table(layers.head_outputs(mask, num_classes), channels)
    build.convs = {plain(conv.name): conv for conv in convs}
    inputs = keras.Input(shape, name="images")
    model = keras.Model(inputs, list(layers.network(build, inputs)), name=name)
    for head, anchors in zip(("coarse_head", "fine_head"), mask, strict=True):
        layer: Any = model.get_layer(head)
        layer.bias.assign(np.array(layers.head_bias(layer.filters, len(anchors)), "float32"))
    for mechanism, where in chosen:
        model = attach(model, mechanism, [plain(site) for site in where], start=start, **options)
    return model


class _Build:
    """`layers.Layers` that adds Keras layers with these names after the prefix of a block."""

    def __init__(self, convs: Mapping[str, ConvSpec], data_format: Any, prefix: str = ""):
        check_choice("data_format", data_format, ("channels_last", "channels_first"))
        self.convs, self.data_format, self.prefix = convs, data_format, prefix
        self.axis = 3 if data_format == "channels_last" else 1

    def conv(self, name: str, x: Any) -> Any:
        name = self.prefix + name
        conv, form = self.convs[name], {"data_format": self.data_format}
        if not conv.norm:  # small, so that the biases decide the first outputs
            return keras_layers.Conv2D(
                conv.outputs, 1, kernel_initializer=initializers.RandomNormal(stddev=0.01), **form, name=name
            )(x)
        draw = initializers.VarianceScaling(HE, "fan_in", "untruncated_normal")
        common = {"strides": conv.stride, "use_bias": False, "kernel_initializer": draw, **form, "name": f"{name}_conv"}
        if conv.stride == 2:  # Keras's "same" would pad only below and to the right
            x = keras_layers.ZeroPadding2D(conv.kernel // 2, **form, name=f"{name}_pad")(x)
        x = keras_layers.Conv2D(conv.outputs, conv.kernel, padding="valid" if conv.stride == 2 else "same", **common)(x)
        norm = {"momentum": 1 - layers.MOMENTUM, "epsilon": layers.EPSILON, "name": f"{name}_norm"}
        x = keras_layers.BatchNormalization(self.axis, **norm)(x)
        return keras_layers.LeakyReLU(negative_slope=layers.SLOPE, name=f"{name}_act")(x)

    def block(self, name: str, x: Any) -> Any:
        return layers.csp(_Build(self.convs, self.data_format, f"{name}_"), x)

    def second_half(self, x: Any) -> Any:
        half = x.shape[self.axis] // 2
        return x[..., half:] if self.axis == 3 else x[:, half:]

    def concat(self, name: str, xs: Sequence[Any]) -> Any:
        return keras_layers.Concatenate(self.axis, name=(self.prefix + name).rstrip("_"))(list(xs))

    def pool(self, name: str, x: Any) -> Any:
        return keras_layers.MaxPooling2D(2, data_format=self.data_format, name=name)(x)

    def upsample(self, name: str, x: Any) -> Any:
        return keras_layers.UpSampling2D(2, data_format=self.data_format, name=name)(x)

    def site(self, name: str, x: Any) -> Any:
        return keras_layers.Identity(name=f"sites_{name}")(x)


class Network:
    """The weights of a model for `foveate.models.darknet`."""

    def __init__(self, model: Any):
        self.model = model
        outputs = [model.get_layer(name).filters for name in layers.HEADS]
        self.convs = layers.table(outputs, model.get_layer("stem1_conv").kernel.shape[2])

    def read(self) -> Arrays:
        """Return copies of all arrays."""
        found: Arrays = {}
        for conv, name, variable in self._variables():
            array = np.array(keras.ops.convert_to_numpy(variable.value), "float32")
            found.setdefault(conv.name, {})[name] = array.transpose(3, 2, 0, 1) if name == "kernel" else array
        return found

    def write(self, arrays: Arrays) -> None:
        """Set the weights of the layers that the arrays name."""
        for conv, name, variable in self._variables():
            if conv.name in arrays:
                array = arrays[conv.name][name]
                variable.assign(array.transpose(2, 3, 1, 0) if name == "kernel" else array)

    def _variables(self) -> Iterator[tuple[ConvSpec, str, Any]]:
        for conv in self.convs:
            layer = self.model.get_layer(layer_name(conv))
            norm = self.model.get_layer(f"{plain(conv.name)}_norm") if conv.norm else None
            for name in conv.shapes:
                holder, own = (layer, name) if norm is None or name == "kernel" else (norm, NORM.get(name, name))
                yield conv, name, getattr(holder, own)


NORM = {"mean": "moving_mean", "variance": "moving_variance"}


def network_of(model: Any) -> Network | None:
    """Return the weights of a model, None if it is not a YOLOv4-tiny."""
    names = {layer.name for layer in model.layers}
    wanted = {layer_name(conv) for conv in layers.table((0, 0))}
    return Network(model) if wanted <= names else None


def plain(name: str) -> str:
    """Return the Keras form of a name in the torch model: with Keras on torch, names must not have a dot."""
    return name.replace(".", "_")


def layer_name(conv: ConvSpec) -> str:
    """Return the name of the layer that holds the kernel."""
    return plain(conv.name) + ("_conv" if conv.norm else "")


def _checked(shape: Any, axis: int) -> tuple[tuple[int | None, ...], int]:
    """Return the shape of the images, and their channels. Raises UsageError for an invalid shape."""
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) != 3 or sizes[axis - 1] not in (1, 3):
        wanted = "(H, W, 3) or (H, W, 1)" if axis == 3 else "(3, H, W) or (1, H, W)"
        raise UsageError(expected=f"input_shape as {wanted}", received=repr(shape), do="leave a size open with None")
    layers.check_size(*(size for place, size in enumerate(sizes, 1) if place != axis))
    return sizes, sizes[axis - 1]
