"""The two ways training treats weights apart from the optimizer's: their running average, and a backbone held still."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from foveate.errors import UsageError
from foveate.surgery.modes import Held


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


def backbone(model: nn.Module) -> Held:
    """Return what learns in `model.backbone`, one module or several. Raises UsageError where a model does not say what its backbone is."""
    found = getattr(model, "backbone", None)
    parts = [found] if isinstance(found, nn.Module) else found
    if not parts:
        raise UsageError(
            expected="a model with a part named backbone",
            received=type(model).__name__,
            do="leave --freeze-epochs out, or use yolov4-tiny",
        )
    return Held(*parts)
