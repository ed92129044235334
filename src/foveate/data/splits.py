"""The splits of a data set: which image is in which split, chosen once and saved with a run."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
    "is_filler",
    "split_of",
    "splits_among",
    "undivided",
]

SPLITS = ("train", "val", "test")
ON_DEFECT = ("drop", "refuse")  # what to do with images or boxes that cannot be used
# the plain names of splits in files and folders, in lower case
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WORD = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
_FILLER = "(?:seg|sets?|splits?|images?|imgs?|pics?|pictures?|photos?|data|datasets?|samples?|folders?|files?|raw|rgb)"
_NAME = re.compile(rf"{_FILLER}*({_WORD}){_FILLER}*\d*")  # of a name in lower case, without separators
_FIRST, _LAST = re.compile(rf"({_WORD})[\W_]+(.+)"), re.compile(rf"(.+?)[\W_]+({_WORD})")


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


def split_of(name: str) -> str | None:
    """Return the split that a file or folder is named after, in any case, or None.

    >>> [split_of(name) for name in ("Training", "test_set", "seg_train", "val2017", "Test Set", "trains")]
    ['train', 'test', 'train', 'val', 'test', None]
    """
    match = _NAME.fullmatch(_joined(name))
    return SPLIT_NAMES[match[1]] if match else None


def is_filler(name: str) -> bool:
    """Return whether the name of a folder says nothing about the images in it, such as "images" or "Data Set"."""
    return re.fullmatch(f"{_FILLER}+", _joined(name)) is not None


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Return the splits of those names that are named after one, also as flowers_train beside flowers_test."""
    found: dict[str, str] = {}
    kin: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        if split := split_of(name):
            found[name] = split
        elif match := _FIRST.fullmatch(name.lower()):
            kin[match[2]][name] = SPLIT_NAMES[match[1]]
        elif match := _LAST.fullmatch(name.lower()):
            kin[match[1]][name] = SPLIT_NAMES[match[2]]
    for group in kin.values():
        if len(set(group.values())) > 1:
            found |= group
    return found


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
                do="add images, remove the class, or make train/, val/ and test/ yourself",
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


def _joined(name: str) -> str:
    """Return a name in lower case, without separators."""
    return re.sub(r"[\W_]", "", name.lower())


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
