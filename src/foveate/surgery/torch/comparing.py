"""Compare what mechanisms would add to a PyTorch model."""

from collections.abc import Sequence

import torch
from torch import nn

from foveate import kernels
from foveate.facts import facts
from foveate.kernels import chosen, dispatch
from foveate.mechanisms import built_in, catalogue, require
from foveate.spec import Mechanism
from foveate.surgery.core import comparing
from foveate.surgery.core.comparing import Candidate
from foveate.surgery.core.replacing import Replace
from foveate.surgery.core.selectors import Where
from foveate.surgery.torch.example import Example
from foveate.surgery.torch.host import TorchHost
from foveate.torch_utils.machine import measure_speed


@torch.inference_mode(False)
def compare(
    model: nn.Module,
    mechanisms: "Sequence[str | Mechanism | type[Mechanism]] | None" = None,
    where: "Where | None" = None,
    *,
    example: Example = None,
    replace: "Replace | None" = None,
) -> list[Candidate]:
    """Return what each mechanism would add to a model, by predicted time; builds and trains nothing.

    Those that cannot be attached come last, with the reason. The time of a forward is an estimate from four numbers,
    which are measured in a second on the device of the model (`foveate.speed.Speed`). Where Foveate's kernels would
    run, the time is theirs.

    Args:
        model: the host, which does not change.
        mechanisms: names, mechanisms or their classes; by default all that have a name.
        where: the sites, as in `attach`.
        example: what the model is called with, as in `attach`.
        replace: modules of the model that the attention is to take the place of, as in `attach`.

    Raises:
        UsageError: as `attach`, except for mechanisms that do not fit.
    """
    chosen_ones = [require(each) for each in (catalogue() if mechanisms is None else mechanisms)]
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    fast = device.type == "cpu" and chosen.choice not in dispatch.PLAIN and kernels.unavailable() is None

    def has_kernel(mechanism: Mechanism) -> bool:
        return (
            fast and built_in().get(mechanism.name) is type(mechanism) and facts(type(mechanism)).get("kernel", False)
        )

    return comparing.compare(TorchHost(model), chosen_ones, where, example, measure_speed(device), has_kernel, replace)
