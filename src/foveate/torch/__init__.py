"""Every mechanism of the catalogue as a `torch.nn.Module` class: `from foveate.torch import CBAM; CBAM(256)`."""

from foveate.errors import naming_extras

with naming_extras():
    from foveate.bind.torch.attention import Attention, attention, classes
    from foveate.bind.torch.parts import Gate

__all__ = ["Attention", "Gate", "attention", *(_classes := classes())]  # pyright: ignore[reportUnsupportedDunderAll] - the stub lists them
globals().update(_classes)
