"""The base of the data of every task: three splits, classes, the normalisation of images, and a description."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate.data.images.working_copies import WorkingCopies
from foveate.data.splits import Split
from foveate.normalisation import UNIT, Normalisation

Samples = TypeVar("Samples")


@dataclass(frozen=True, kw_only=True)
class DataSet(ABC, Generic[Samples]):
    """A data set in three splits.

    `split` lists the images of a folder by split and is saved with a run; `copies` are its images as training reads
    them.
    """

    name: str
    train: Samples
    val: Samples
    test: Samples
    classes: list[str]
    size: int
    fingerprint: str
    channels: int = 3
    normalisation: Normalisation = UNIT
    details: Mapping[str, Any] = field(default_factory=dict)
    split: Split | None = None
    copies: WorkingCopies | None = None

    def describe(self) -> dict[str, Any]:
        """Return a description of the data for records and reports, in values that JSON can hold."""
        return {
            "name": self.name,
            "classes": self.classes,
            "channels": self.channels,
            "size": self.size,
            "normalisation": self.normalisation.to_dict(),
            "fingerprint": self.fingerprint,
            **self.numbers(),
            **self.details,
        }

    @property
    @abstractmethod
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of images or objects of each class in each split."""

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of each split for the description."""
        return {"counts": self.counts}

    def image(self, split: str, index: int) -> NDArray[np.uint8]:
        """Return an image for showing, uint8 (H, W, 3), at the size that its ground truth refers to."""
        return getattr(self, split).image(index)
