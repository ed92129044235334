"""Make torchvision importable if its compiled operators do not load.

A torchvision wheel built for CUDA cannot load its operators beside a CPU-only torch. Then `import torchvision`, and so
timm, lightning and torchmetrics, fails with "operator torchvision::nms does not exist". The pure Python parts (models,
transforms, datasets) need only the schemas of the operators. They are declared here, only if the real operators are
absent.
"""

import importlib
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from pathlib import Path

from foveate.errors import UsageError

INSTALL = "python -m pip install torch torchvision"

_POOL = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_CONV = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
    "SymInt groups, SymInt offset_groups, bool use_mask"
)
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, {_POOL}, int sampling_ratio, bool aligned) -> Tensor",
    "qroi_align(Tensor input, Tensor rois, float input_scale, int input_zero_point, float rois_scale, "
    f"int rois_zero_point, {_POOL}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_POOL}, {_SIZES}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, {_POOL}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_POOL}, {_SIZES}) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, {_POOL}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, int sampling_ratio, {_SIZES}) "
    "-> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, {_POOL}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, {_SIZES}) -> Tensor",
    f"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_CONV}) -> Tensor",
    "_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    f"{_CONV})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@cache
def ensure_torchvision() -> None:
    """Make `import torchvision` work, also for timm, lightning and torchmetrics; call it before importing any of them.

    Raises:
        UsageError: torchvision is missing or broken; the message names the exact `pip install`.
    """
    if "torchvision" in sys.modules:
        return
    try:
        if not operators_load():
            _declare_operators()
        importlib.import_module("torchvision")
    except Exception as error:  # a broken installation raises almost anything
        absent = isinstance(error, ModuleNotFoundError) and error.name == "torchvision"
        raise UsageError(
            expected="a torchvision that can be imported",
            received="an environment without it"
            if absent
            else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            do=INSTALL if absent else f"{INSTALL} --force-reinstall",
        ) from error


def operators_load() -> bool:
    """Return whether torchvision's compiled operators load with this torch; loading them twice is harmless."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    extension = FileFinder(str(Path(spec.origin).parent), (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec("_C")
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except (ImportError, OSError):
        return False
    return True


@cache
def _declare_operators() -> object:
    """Declare the schemas; the cache keeps the library referenced, without which they would disappear."""
    from torch.library import Library

    library = Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    return library
