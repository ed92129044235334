"""Normalisation of images for a network: (x - mean) / deviation in each channel, with x from 0 to 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from foveate.errors import DataError, UsageError

__all__ = ["IMAGENET", "UNIT", "Normalisation", "normalisation_of", "set_normalisation"]


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of each channel, for pixels from 0 to 1, and where these numbers come from.

    A network works only on images that are normalised in the same way as its training images.

    Raises:
        UsageError: not exactly one mean and one positive deviation for each channel.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    source: str = field(default="not stated", compare=False)

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.deviation)
        if (
            not self.mean
            or len(self.mean) != len(self.deviation)
            or not all(map(math.isfinite, numbers))
            or min(self.deviation) <= 0
        ):
            raise UsageError(
                expected="one mean and one positive deviation for each channel",
                received=f"mean {self.mean}, deviation {self.deviation}",
                do="give as many numbers as the images have channels",
            )

    def __str__(self) -> str:
        return f"mean {_listed(self.mean)}, deviation {_listed(self.deviation)} ({self.source})"

    def for_channels(self, channels: int) -> "Normalisation":
        """Return this normalisation. Raises UsageError if images have another number of channels."""
        if channels == len(self.mean):
            return self
        raise UsageError(
            expected=f"images of {_channels(len(self.mean))}, as the network was trained with ({self.source})",
            received=f"images of {_channels(channels)}",
            do=f"use weights trained on images of {_channels(channels)}; "
            f"only embedded digits can have --channels {len(self.mean)}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {"mean": list(self.mean), "deviation": list(self.deviation), "source": self.source}

    @classmethod
    def from_dict(cls, record: Any, where: object) -> "Normalisation":
        """Return the normalisation that `to_dict` wrote into the file `where`. Raises DataError for another record."""
        try:
            return cls(tuple(map(float, record["mean"])), tuple(map(float, record["deviation"])), str(record["source"]))
        except (TypeError, KeyError, ValueError, UsageError) as error:
            raise DataError(
                expected=f"in {where} the mean and deviation that images are normalised with",
                received=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                do="train again, or get the file again",
            ) from None


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet's")
UNIT = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "pixels from 0 to 1, as for Darknet's detectors")


def set_normalisation(model: Any, normalisation: Normalisation) -> None:
    """Set `model.normalisation`, which says how the images for the model are normalised."""
    model.normalisation = normalisation


def normalisation_of(model: Any) -> Normalisation | None:
    """Return `model.normalisation`, or None if the model has none."""
    found = getattr(model, "normalisation", None)
    return found if isinstance(found, Normalisation) else None


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def _listed(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:.4g}" for number in (numbers[:1] if len(set(numbers)) == 1 else numbers))
