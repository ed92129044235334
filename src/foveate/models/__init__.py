"""Host models: `build` by name, the built-in CIFAR ResNet, and the guard that keeps torchvision importable."""

from foveate.models.cifar_resnet import CifarResNet
from foveate.models.hosts import BUILT_IN, build
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.models.weights import load_weights, save_weights

__all__ = ["BUILT_IN", "CifarResNet", "build", "ensure_torchvision", "load_weights", "save_weights"]
