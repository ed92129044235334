"""The running average of a model's weights."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


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
