"""The splits of a data set: which image is in which split, chosen once and saved with a run."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.checks import check_choice
from foveate.errors import DataError

__all__ = [
    "ON_DEFECT",
    "SPLITS",
    "SPLIT_NAMES",
    "Item",
    "Split",
    "as_recorded",
    "check_measured",
    "divide",
    "undivided",
]

SPLITS = ("train", "val", "test")
ON_DEFECT = ("drop", "refuse")  # what to do with images or boxes that cannot be used
# the names of splits in files and folders
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, order=True)
class Item:
    """One image: its path relative to the data folder, with `/`, and the index of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Split:
    """The images of each split, and the sorted class names; a label is the index of its class."""

    classes: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """Every image."""
        return tuple(item for name in SPLITS for item in getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold: for each split and class, the paths of its images."""
        return {"classes": list(self.classes)} | {
            name: {
                kind: [item.path for item in getattr(self, name) if item.label == k]
                for k, kind in enumerate(self.classes)
            }
            for name in SPLITS
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Split":
        """Read what `to_dict` wrote.

        Raises:
            DataError: the record is not of that form, or lists an image twice.
        """
        try:
            classes = tuple(map(str, record["classes"]))
            items = {
                name: tuple(sorted(Item(str(path), k) for k, kind in enumerate(classes) for path in record[name][kind]))
                for name in SPLITS
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise _broken(f"{type(error).__name__}: {error}") from None
        split = cls(classes, **items)
        paths = [item.path for item in split.items]
        if len(set(paths)) < len(paths):
            raise _broken(f"the image {next(path for path in paths if paths.count(path) > 1)} more than once")
        return split


def divide(items: Sequence[Item], shares: Sequence[float], seed: int, classes: Sequence[str]) -> list[list[Item]]:
    """Divide the images by `shares` (their sum is 1), class by class; every part gets at least one image of each class.

    The result depends only on the set of items and the seed, not on the order in which a disk lists them.

    Raises:
        DataError: a class has fewer images than there are parts.
    """
    members: dict[int, list[Item]] = defaultdict(list)
    for item in sorted(items):
        members[item.label].append(item)
    parts: list[list[Item]] = [[] for _ in shares]
    for label, group in sorted(members.items()):
        if len(group) < len(shares):
            raise DataError(
                expected=f"at least {len(shares)} images of class {classes[label]!r}, one for each split",
                received=str(len(group)),
                do="add images, remove the class, or lay out train/, val/ and test/ yourself",
            )
        order = np.random.default_rng([seed, label]).permutation(len(group))
        cuts = np.cumsum(_counts(len(group), shares))[:-1]
        for part, chosen in zip(parts, np.split(order, cuts), strict=True):
            part.extend(group[k] for k in chosen)
    return [sorted(part) for part in parts]


def check_measured(name: str | None) -> None:
    """Raise UsageError for a name that is neither None nor a split that can be measured."""
    if name is not None:
        check_choice("measured", name, SPLITS[1:])


def undivided(items: Sequence[Item], name: str, classes: tuple[str, ...]) -> Split:
    """Return a split in which every image belongs to the part called `name`."""
    return Split(classes, **{part: tuple(sorted(items)) if part == name else () for part in SPLITS})


def as_recorded(found: Split, record: Split | None) -> Split:
    """Return the split that was found, but with images listed in an earlier `record` in the splits of that record."""
    if record is None:
        return found
    places = {item.path: name for name in SPLITS for item in getattr(record, name)}
    parts: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for name in SPLITS:
        for item in getattr(found, name):
            parts[places.get(item.path, name)].append(item)
    return Split(found.classes, **{name: tuple(part) for name, part in parts.items()})


def _counts(total: int, shares: Sequence[float]) -> list[int]:
    """Return whole numbers near `total * shares`, at least 1; the first part, the largest, absorbs the rounding."""
    rest = [max(1, round(total * share)) for share in shares[1:]]
    return [total - sum(rest), *rest]


def _broken(received: str) -> DataError:
    return DataError(
        expected="a split as Split.to_dict writes it",
        received=received,
        do="remove the file; the data are then split again",
    )
