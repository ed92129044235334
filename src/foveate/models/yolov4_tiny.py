"""YOLOv4-tiny in PyTorch: the table of `yolov4_tiny_layers` as modules."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from foveate.checks import check_least
from foveate.detection.heads import STRIDE, YOLOV4_TINY_ANCHORS, YOLOV4_TINY_MASK, Anchors, Mask, make_heads
from foveate.errors import UsageError
from foveate.models import yolov4_tiny_layers as layers
from foveate.models.darknet_file import Arrays
from foveate.models.yolov4_tiny_layers import ConvSpec
from foveate.parts import Start
from foveate.surgery.torch.attaching import AnyMechanism, attach
from foveate.torch_utils.names import unwrapped

SIDE = 2 * STRIDE  # of the input of the run in which `attach` finds the sites


class YOLOv4Tiny(nn.Module):
    """CSPDarknet53-tiny with a neck of two resolutions (arXiv 2011.08036): images (N, C, H, W) in 0..1 -> two outputs.

    The outputs are (N, A * (5 + classes), H / 32, W / 32) and (N, A * (5 + classes), H / 16, W / 16): for each of A
    anchors tx ty tw th, objectness and the classes, all before the sigmoid. With 80 classes, Darknet's COCO weights
    fit: see `load_darknet`.

    Args:
        classes: the number of classes.
        anchors_mask: the anchors of the coarse and of the fine output, by number; only their count changes the network.
        anchors: (width, height) in pixels of the input. With the mask they make `heads`, which describe the outputs.
        attention: a mechanism for the three sites of the neck, or a mapping from "feat1" (H / 16, 256 channels),
            "feat2" (H / 32, 512) and "up" (H / 16, 128, the upsampled P5) to one. It is attached as `attach(model, ...,
            where="sites.*")` would.
        phi: 1 to 4 for the attention se, cbam, eca or coordinate, as in other YOLO repositories.
        start: "identity" leaves the outputs equal at first, so that trained weights stay valid; "paper" is the
            published behaviour.
        channels: the channels of the images, 1 for grey ones. `load_darknet` fits weights for RGB to grey images, and
            weights for grey images to RGB.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: a mask, site, mechanism, option or number that does not exist.
    """

    coarse_head: nn.Conv2d
    fine_head: nn.Conv2d
    head_layers = layers.HEADS

    def __init__(
        self,
        classes: int = 80,
        anchors_mask: Mask = YOLOV4_TINY_MASK,
        attention: AnyMechanism | Mapping[str, AnyMechanism | None] | None = None,
        *,
        anchors: Anchors = YOLOV4_TINY_ANCHORS,
        phi: int = 0,
        start: Start = "identity",
        channels: int = 3,
        **options: Any,
    ):
        super().__init__()
        check_least("classes", classes, 1)
        check_least("channels", channels, 1)
        chosen = layers.placed(attention, phi, options)
        self.classes, self.channels, self.heads = classes, channels, make_heads(anchors, anchors_mask)
        self.convs = layers.table(layers.head_outputs([head.anchors for head in self.heads], classes), channels)
        for conv in self.convs:
            block, _, name = conv.name.rpartition(".")
            if block and not hasattr(self, block):
                self.add_module(block, Csp())
            self.get_submodule(block).add_module(name, _module(conv))
        for layer, head in zip((self.coarse_head, self.fine_head), self.heads, strict=True):
            layer.bias = nn.Parameter(torch.tensor(layers.head_bias(layer.out_channels, len(head.anchors))))
        self.sites = nn.ModuleDict({site: nn.Identity() for site in layers.SITES})
        for mechanism, where in chosen:
            attach(self, mechanism, where, example=(1, channels, SIDE, SIDE), start=start, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse and the fine output for images (N, C, H, W).

        Raises UsageError if 32 does not divide H and W.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise UsageError(
                expected=f"images (N, {self.channels}, H, W)",
                received=f"the shape {tuple(x.shape)}",
                do="stack images in 0..1; YOLOv4Tiny(channels=1) takes grey ones, channels=3 RGB",
            )
        layers.check_size(x.shape[2], x.shape[3])
        return layers.network(_Run(self), x)

    @property
    def backbone(self) -> tuple[nn.Module, ...]:
        """Return the modules of CSPDarknet53-tiny."""
        return tuple(self.get_submodule(name) for name in layers.BACKBONE)

    def fused(self) -> "YOLOv4Tiny":
        """Return a copy for inference with the norms folded into the convolutions; attached attention stays."""
        fused = copy.deepcopy(self).eval()
        for layer in [module for module in fused.modules() if isinstance(module, ConvNorm)]:
            # Attention attached to either of the two needs their separate outputs.
            if (
                isinstance(layer.norm, nn.BatchNorm2d)
                and not layer.conv._forward_hooks
                and not layer.norm._forward_hooks
            ):
                layer.conv, layer.norm = fuse_conv_bn_eval(layer.conv, layer.norm), nn.Identity()
        return fused


class ConvNorm(nn.Module):
    """Convolution, batch norm, leaky ReLU: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, conv: ConvSpec):
        super().__init__()
        self.conv = nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(conv.outputs, layers.EPSILON, layers.MOMENTUM)
        self.act = nn.LeakyReLU(layers.SLOPE)
        nn.init.kaiming_normal_(self.conv.weight, layers.SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Run the convolution, the norm and the activation."""
        return self.act(self.norm(self.conv(x)))


class Csp(nn.Module):
    """A cross-stage partial block: (N, C, H, W) -> (N, 2 C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        return layers.csp(_Run(self), x)


class _Run:
    """`layers.Layers` over the children of a module."""

    def __init__(self, module: Any):
        self.module = module

    def conv(self, name: str, x: Tensor) -> Tensor:
        return getattr(self.module, name)(x)

    block = conv

    def second_half(self, x: Tensor) -> Tensor:
        return x.chunk(2, 1)[1]

    def concat(self, name: str, xs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(xs), 1)

    def pool(self, name: str, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 2)

    def upsample(self, name: str, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")

    def site(self, name: str, x: Tensor) -> Tensor:
        return self.module.sites[name](x)


class Network:
    """The weights of a model for `foveate.models.darknet`."""

    def __init__(self, model: YOLOv4Tiny):
        self.model, self.convs = model, model.convs

    def read(self) -> Arrays:
        """Return copies of all arrays."""
        found: Arrays = {}
        for conv in self.convs:
            found[conv.name] = {
                name: tensor.detach().float().cpu().numpy().copy() for name, tensor in self._tensors(conv).items()
            }
        return found

    @torch.no_grad()
    def write(self, arrays: Arrays) -> None:
        """Set the weights of the layers that the arrays name."""
        for conv in self.convs:
            for name, tensor in self._tensors(conv).items():
                if conv.name in arrays:
                    tensor.copy_(torch.from_numpy(np.array(arrays[conv.name][name])))

    def _tensors(self, conv: ConvSpec) -> dict[str, Tensor]:
        layer: Any = self.model.get_submodule(conv.name)
        if not conv.norm:
            return {"bias": layer.bias, "kernel": layer.weight}
        norm = layer.norm
        found = (norm.bias, norm.weight, norm.running_mean, norm.running_var, layer.conv.weight)
        return dict(zip(conv.shapes, found, strict=True))


def network_of(model: nn.Module) -> Network | None:
    """Return the weights of a model, None if it is not a YOLOv4-tiny. Raises UsageError for a fused one."""
    model = unwrapped(model)
    if not isinstance(model, YOLOv4Tiny):
        return None
    if any(isinstance(layer, ConvNorm) and isinstance(layer.norm, nn.Identity) for layer in model.modules()):
        raise UsageError(
            expected="a model with its norms", received="a fused one", do="use the model that fused() was called on"
        )
    return Network(model)


def _module(conv: ConvSpec) -> nn.Module:
    if conv.norm:
        return ConvNorm(conv)
    head = nn.Conv2d(conv.inputs, conv.outputs, conv.kernel)
    nn.init.normal_(head.weight, std=0.01)  # small, so that the biases decide the first outputs
    return head
