"""Open the data of a classifier: a folder of images, planted data, or cluttered digits."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from foveate.checks import check_least
from foveate.data.boxes.box_data import BoxData
from foveate.data.digits.cluttered import DigitsOptions
from foveate.data.digits.digit_data import digit_data
from foveate.data.images.decode import Greys
from foveate.data.images.image_data import Data, folder_data
from foveate.data.images.image_folder import open_folder
from foveate.data.images.working_copies import IN_RAM, CacheOptions
from foveate.data.planted import SIDE, PlantedOptions, planted_data, planted_kind
from foveate.data.splits import Split, check_measured
from foveate.errors import UsageError
from foveate.normalisation import IMAGENET, Normalisation

AnyData: TypeAlias = Data | BoxData


def open_data(
    path: str | os.PathLike[str] | None,
    *,
    imgsz: int | None = None,
    seed: int = 0,
    digits: DigitsOptions | None = None,
    split: Split | None = None,
    measured: str | None = None,
    augment: bool = True,
    normalisation: Normalisation | None = None,
    planted: PlantedOptions | None = None,
    on_defect: str = "refuse",
    greys: Greys | None = None,
    cache: CacheOptions = IN_RAM,
) -> Data:
    """Open a folder of images; generate cluttered digits if `path` is None, planted data for "planted:where" etc.

    `imgsz` is the side in pixels of the model's input. For digits it replaces their canvas; for a folder, None takes
    the median shorter side, at most 224. `seed` decides how a folder is split and augmented, and how planted data
    without `planted` are generated; digits have their own seed. With `augment`, training uses random views of a
    folder's images (`foveate.data.images.augment`), never of digits. Images listed in a saved `split` stay in its
    splits. With `measured` "val" or "test", an unsplit folder becomes that split as a whole. `normalisation` None takes
    ImageNet's for a folder, and the mean and deviation of the training pixels for digits. `on_defect` "drop" leaves out
    unreadable images of a folder, "refuse" raises an error. The values `greys` of 16-bit grey images become 0 and 255;
    None takes the lowest and highest of the whole folder. `cache` says where the decoded images of a folder are kept;
    they are the same with any.

    Raises:
        UsageError: an option is out of range, or scikit-learn is missing.
        DataError: the folder cannot be used; the message names the file or class.
    """
    check_least("seed", seed, 0)
    check_measured(measured)
    if imgsz is not None and (not isinstance(imgsz, int) or not 16 <= imgsz <= 2048):
        raise UsageError(
            expected="imgsz from 16 to 2048 pixels",
            received=repr(imgsz),
            do="choose a size within that range, such as 96 or 224",
        )
    if path is None:
        digits = digits or DigitsOptions()
        return digit_data(replace(digits, canvas=imgsz) if imgsz else digits, normalisation)
    if kind := planted_kind(path):
        planted = planted or PlantedOptions(kind, seed=seed)
        if planted.kind != kind or imgsz not in (None, SIDE):
            raise UsageError(
                expected=f"options of {path}, whose images are {SIDE} x {SIDE}",
                received=f"PlantedOptions({planted.kind!r}) and imgsz={imgsz}",
                do=f"give PlantedOptions({kind!r}), and no imgsz",
            )
        return planted_data(planted, normalisation)
    folder = open_folder(Path(path), seed, split, measured, on_defect)
    return folder_data(folder, imgsz, seed, augment, (normalisation or IMAGENET).for_channels(3), greys, cache)
