"""Make torchvision importable when its compiled operators are not.

A torchvision wheel built for CUDA cannot load its operators beside a CPU-only torch, and then `import torchvision`, and with it
timm, lightning and torchmetrics, stops with "operator torchvision::nms does not exist". Its pure Python parts (models,
transforms, datasets) need only the operators' schemas, so those are declared here, and only while the real ones are absent.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path

from foveate.errors import UsageError

INSTALL = "python -m pip install torchvision"
_POOL = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_POOL_SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_DEFORM = (
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask"
)
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, {_POOL}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_POOL}, {_POOL_SIZES}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, {_POOL}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_POOL}, {_POOL_SIZES}) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, {_POOL}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, int sampling_ratio, {_POOL_SIZES}) -> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, {_POOL}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOL}, {_POOL_SIZES}) -> Tensor",
    f"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_DEFORM})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "_cuda_version() -> int",
)


@cache
def ensure_torchvision() -> None:
    """Make `import torchvision` work, and with it timm, lightning and torchmetrics; call it before the first import of any of them.

    Raises:
        UsageError: torchvision is missing or broken; the message names the exact `pip install`.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise UsageError(expected="the package torchvision", received="it is not installed", do=INSTALL)
    if not _operators_load():
        _declare_operators()
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        raise UsageError(
            expected="a torchvision that can be imported", received=f"{type(error).__name__}: {error}", do=f"{INSTALL} --force-reinstall"
        ) from error
