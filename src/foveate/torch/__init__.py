"""Every mechanism of the catalogue as a `torch.nn.Module` class: `from foveate.torch import CBAM; CBAM(256)`."""

from foveate.errors import naming_extras

with naming_extras():
    from foveate.bind.torch import Attention, Gate, attention, classes

__all__ = ["Attention", "Gate", "attention", *(_classes := classes())]  # pyright: ignore[reportUnsupportedDunderAll] - the stub lists them
globals().update(_classes)
