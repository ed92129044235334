"""Every mechanism of the catalogue as a `keras.Layer` class: `from foveate.keras import CBAM; CBAM()(x)`."""

from foveate.bind.keras import Attention, Gate, attention, classes
from foveate.surgery.keras_attach import attach, detach, plan

__all__ = ["Attention", "Gate", "attach", "attention", "detach", "plan", *(_classes := classes())]  # pyright: ignore[reportUnsupportedDunderAll] - the stub lists them
globals().update(_classes)
