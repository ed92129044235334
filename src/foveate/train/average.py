"""The two ways training treats weights apart from the optimizer's: their running average, and a backbone held still."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from foveate.errors import UsageError
from foveate.surgery.child import CHILD


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


class Backbone:
    """What learns in `model.backbone`, one module or several: its parameters and the norms that follow their input.

    What is frozen already, and attention attached inside the backbone, is no part of it.

    Raises:
        UsageError: a model that does not say what its backbone is.
    """

    def __init__(self, model: nn.Module):
        found = getattr(model, "backbone", None)
        parts = [found] if isinstance(found, nn.Module) else found
        if not parts:
            raise UsageError(
                expected="a model with a part named backbone",
                received=type(model).__name__,
                do="leave --freeze-epochs out, or use yolov4-tiny",
            )
        hosts = [module for part in parts for name, module in part.named_modules() if CHILD not in name.split(".")]
        self.parameters = [p for host in hosts for p in host.parameters(recurse=False) if p.requires_grad]
        self.norms = [host for host in hosts if isinstance(host, torch.nn.modules.batchnorm._NormBase) and host.training]

    def hold(self, still: bool) -> None:
        """Keep it as it is, or let it learn (again)."""
        for parameter in self.parameters:
            parameter.requires_grad_(not still)
        for norm in self.norms:
            norm.train(not still)
