"""Select a detector's detections on a GPU with torchvision's non-maximum suppression."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from foveate.detection.nms import MOST, check_thresholds
from foveate.errors import UsageError
from foveate.models.torchvision_guard import ensure_torchvision

FAR = 2.0**20  # pixels: torchvision keeps classes apart by moving boxes, which needs finite coordinates from 0


def fits(boxes: Tensor) -> bool:
    """Return whether to select with torchvision: on CUDA, where its operators load."""
    return boxes.is_cuda and runs_on("cuda")


@cache
def runs_on(device: str) -> bool:
    """Return whether torchvision is installed and its compiled suppression runs on "cuda" or "cpu"."""
    try:
        ensure_torchvision()
    except UsageError:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", device.upper())


def select(
    boxes: Tensor, scores: Tensor, conf: float, threshold: float, max_det: int, most: int = MOST
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `foveate.detection.nms.select` returns for the same arguments, as tensors on the device of the boxes.

    Coordinates beyond a million pixels count as a million. Raises UsageError as `check_thresholds`.
    """
    from torchvision.ops import boxes as torchvision_boxes

    check_thresholds(conf, threshold, max_det)
    of_box, label = (scores > conf).nonzero(as_tuple=True)
    score, best = scores[of_box, label].sort(descending=True, stable=True)
    of_box, label, score = of_box[best[:most]], label[best[:most]], score[:most]
    places = boxes[of_box].double().nan_to_num().clamp(-FAR, FAR) + FAR
    ranks = torch.arange(len(score), 0, -1, device=score.device).double()  # no two are equal, unlike scores
    kept = torchvision_boxes.batched_nms(places, ranks, label, _as_float32(threshold))[:max_det]
    return boxes[of_box[kept]], score[kept], label[kept]


def _as_float32(threshold: float) -> float:
    """Return the least float32 that is not below a threshold, as CUDA code compares in float32.

    An IoU that equals the threshold then suppresses no box.
    """
    near = np.float32(threshold)
    return float(near if float(near) >= threshold else np.nextafter(near, np.float32(2)))
