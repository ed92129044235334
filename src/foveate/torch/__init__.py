"""Every mechanism of the catalogue as a `torch.nn.Module` class: `from foveate.torch import CBAM; CBAM(256)`."""

from foveate.bind.torch import Attention, Gate, classes

__all__ = ["Attention", "Gate", *(_classes := classes(__name__))]
globals().update(_classes)
