"""The exponential moving average (EMA) of the weights of a model."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def ema_of(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a copy of the model whose weights become the EMA of its weights, or None for a decay of 0.

    At step n the decay is at most (1 + n) / (10 + n), so that the EMA of a short run does not stay near the first
    weights.
    """
    if not decay:
        return None

    def follow(average: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
        n = int(count)
        return average.lerp(weight, 1 - min(decay, (1 + n) / (10 + n))) if average.is_floating_point() else weight

    return AveragedModel(model, avg_fn=follow, use_buffers=True).requires_grad_(False)  # DDP would exchange gradients
