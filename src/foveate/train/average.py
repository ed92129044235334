"""The two ways training treats weights apart from the optimizer's: their running average, and a backbone held still."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from foveate.errors import UsageError


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a copy of the model that follows it as an exponential moving average, or None for a decay of 0.

    The decay grows to `decay` over the first steps, (1 + n) / (10 + n) at most, so that a short run is not averaged with its first weights.
    """
    if not decay:
        return None

    def follow(average: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
        n = int(count)
        return average.lerp(weight, 1 - min(decay, (1 + n) / (10 + n))) if average.is_floating_point() else weight

    return AveragedModel(model, avg_fn=follow, use_buffers=True)


def hold_backbone(model: nn.Module, still: bool) -> None:
    """Keep the parameters and the norms' statistics of `model.backbone`, one module or several, as they are, or let them learn (again).

    Raises UsageError for a model that does not say what its backbone is.
    """
    backbone = getattr(model, "backbone", None)
    parts = [backbone] if isinstance(backbone, nn.Module) else backbone
    if not parts:
        raise UsageError(
            expected="a model with a part named backbone", received=type(model).__name__, do="leave --freeze-epochs out, or use yolov4-tiny"
        )
    for part in parts:
        part.requires_grad_(not still)
        for module in part.modules():
            if isinstance(module, torch.nn.modules.batchnorm._NormBase):
                module.train(not still)
