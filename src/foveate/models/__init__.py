"""Models: hosts by name (`build`), CIFAR ResNet, ResNet-FPN-CBAM, and YOLOv4-tiny with Darknet's weights."""

from typing import TYPE_CHECKING

from foveate.errors import lazy

if TYPE_CHECKING:
    from foveate.models.cifar_resnet import CifarResNet
    from foveate.models.darknet import darknet_arrays, load_darknet, save_darknet, set_darknet_arrays
    from foveate.models.detectors import detect
    from foveate.models.hosts import BUILT_IN, build
    from foveate.models.resnet_fpn import ResNetFPN4
    from foveate.models.torchvision_guard import ensure_torchvision
    from foveate.models.weights import load_weights, save_weights
    from foveate.models.yolov4_tiny import YOLOv4Tiny

_HOMES = {
    "CifarResNet": "cifar_resnet",
    **dict.fromkeys(("darknet_arrays", "load_darknet", "save_darknet", "set_darknet_arrays"), "darknet"),
    "detect": "detectors",
    **dict.fromkeys(("BUILT_IN", "build"), "hosts"),
    "ResNetFPN4": "resnet_fpn",
    "ensure_torchvision": "torchvision_guard",
    **dict.fromkeys(("load_weights", "save_weights"), "weights"),
    "YOLOv4Tiny": "yolov4_tiny",
}

__all__ = [
    "BUILT_IN",
    "CifarResNet",
    "ResNetFPN4",
    "YOLOv4Tiny",
    "build",
    "darknet_arrays",
    "detect",
    "ensure_torchvision",
    "load_darknet",
    "load_weights",
    "save_darknet",
    "save_weights",
    "set_darknet_arrays",
]

__getattr__ = lazy(
    __name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()}
)  # Keras models and weight files do not need torch
