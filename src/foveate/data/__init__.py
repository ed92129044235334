"""Data: images with classes, images with boxes, and generated data (digits and planted data)."""

from typing import TYPE_CHECKING

from foveate.errors import lazy

if TYPE_CHECKING:
    from foveate.data.boxes.box_data import BoxData, open_box_data
    from foveate.data.digits.cluttered import DigitsOptions
    from foveate.data.digits.scenes import DigitScenesOptions
    from foveate.data.images.image_data import Data
    from foveate.data.opening import AnyData, open_data
    from foveate.data.planted import PlantedKind, PlantedOptions, planted_kind
    from foveate.data.splits import SPLITS, Split

_HOMES = {
    **dict.fromkeys(("BoxData", "open_box_data"), "boxes.box_data"),
    "DigitsOptions": "digits.cluttered",
    "DigitScenesOptions": "digits.scenes",
    "Data": "images.image_data",
    **dict.fromkeys(("AnyData", "open_data"), "opening"),
    **dict.fromkeys(("PlantedKind", "PlantedOptions", "planted_kind"), "planted"),
    **dict.fromkeys(("SPLITS", "Split"), "splits"),
}

__all__ = [
    "SPLITS",
    "AnyData",
    "BoxData",
    "Data",
    "DigitScenesOptions",
    "DigitsOptions",
    "PlantedKind",
    "PlantedOptions",
    "Split",
    "open_box_data",
    "open_data",
    "planted_kind",
]

__getattr__ = lazy(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
