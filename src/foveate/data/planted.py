"""Planted data: generated images for which it is known by construction whether attention helps, and which kind.

All images are 20 x 20 pixels with coloured pixels on a dark background. They are made for a host that ignores
positions (`foveate.models.PixelNet`: 1 x 1 convolutions and a global mean). Its score is a sum over pixels, so a
image is a bag of pixels to it.

- where: each image holds the same four items, one of each hue, and a white cue beside one of them; the class is the
  hue of the item beside the cue. The bag of pixels is the same for all classes, so a plain host and a channel gate stay
  at chance, 25 %. A spatial gate that is open near the cue keeps only the pixels that decide the class.
- what: the left side has one of three colours, which selects one of three hues. On the right, each hue has few or many
  dots, and the class is whether the selected hue has many. A score that adds a term for the colour and any term for the
  dots is right in at most 20 of 24 cases (83.3 %); with one term for the colour and one for each hue, in at most 19. A
  channel gate that depends on the colour can be right in all cases. A spatial gate sees 7 x 7 pixels, so never both
  sides: with it the host's score is still one term for each side.
- neither: a similar image with any number of dots of each hue. The class is whether the number of all dots exceeds a
  threshold, which is random for each image and near the middle. The best rule compares the number with the middle.
  That is a sum over pixels and is right in 97.2 % of the images, so no attention can help.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveate.checks import check_least
from foveate.data.images.datasets import ColourSet
from foveate.data.images.image_data import Data
from foveate.data.splits import SPLITS
from foveate.errors import UsageError, nearest
from foveate.normalisation import Normalisation

__all__ = [
    "KINDS",
    "PREFIX",
    "SIDE",
    "PlantedImages",
    "PlantedKind",
    "PlantedOptions",
    "make_planted",
    "planted_data",
    "planted_kind",
]

PlantedKind = Literal["where", "what", "neither"]
KINDS: tuple[PlantedKind, ...] = get_args(PlantedKind)
PREFIX = "planted:"
SIDE = 20  # pixels
FEW, MANY = 5, 50  # dots of a hue
MIDDLE = 3 * (FEW + MANY) / 2  # dots of all hues
SPREAD = 3  # of the threshold of "neither", to both sides of the middle: large enough that no rule is always right

_NORMALISATION = Normalisation((0.2,) * 3, (0.25,) * 3, "that of planted data")
_HUES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
_COLOURS = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
_CUE = (1, 1, 1)
_GROUND, _LIGHT, _NOISE = 20, 200, 12  # of 255
# the left side ends before column 6, the right side begins at column 12: no 7 x 7 pixels overlap both
LEFT, RIGHT = 6, 12
_STEPS = np.array([(0, 2), (0, -2), (2, 0), (-2, 0)])  # from an item to its cue


@dataclass(frozen=True)
class PlantedOptions:
    """The kind of planted data, and the number of images in each split.

    Raises:
        UsageError: an unknown kind, a count that is not a whole number from 10 to 200,000, or a seed below 0.
    """

    kind: PlantedKind
    train: int = 1500
    val: int = 300
    test: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                expected=f"planted data: {', '.join(KINDS)}", received=repr(self.kind), do=nearest(self.kind, KINDS)
            )
        check_least("seed", self.seed, 0)
        for name in SPLITS:
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or not 10 <= count <= 200_000:
                raise UsageError(
                    expected=f"{name} as a whole number from 10 to 200000",
                    received=repr(count),
                    do=f"choose {name} within that range",
                )


@dataclass(frozen=True)
class PlantedImages:
    """The images of one split: `images` uint8 (N, 20, 20, 3) and `labels` int64 (N,).

    For "where", `boxes` int64 (N, 4) are those of the items beside the cues.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes: NDArray[np.int64] | None


def planted_data(options: PlantedOptions, normalisation: Normalisation | None = None) -> Data:
    """Generate planted data; `normalisation` None takes the default of planted data."""
    normalisation = (normalisation or _NORMALISATION).for_channels(3)
    parts = make_planted(options)
    sets = {name: ColourSet(part.images, part.labels, normalisation) for name, part in parts.items()}
    return Data(
        name=f"planted-{options.kind}",
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=["red", "green", "blue", "yellow"] if options.kind == "where" else ["few", "many"],
        channels=3,
        size=SIDE,
        normalisation=normalisation,
        fingerprint=fingerprint(options, parts),
        details={
            "kind": "planted",
            "source": "generated by Foveate; what can help is known by construction",
            "layout": f"planted:{options.kind}, generated by Foveate",
            "augmentation": None,
            "options": asdict(options),
            "notes": [],
        },
        boxes={name: part.boxes for name, part in parts.items() if part.boxes is not None} or None,
    )


def planted_kind(data: object) -> PlantedKind | None:
    """Return the kind of a name such as "planted:where", None for a folder. Raises UsageError for an unknown kind."""
    name = str(data)
    return None if not name.startswith(PREFIX) else PlantedOptions(name.removeprefix(PREFIX)).kind  # pyright: ignore[reportArgumentType]


def make_planted(options: PlantedOptions) -> dict[str, PlantedImages]:
    """Generate every split; all arithmetic is on integers, so a seed gives the same bytes on every machine."""
    draw = _where if options.kind == "where" else _what
    return {
        split: draw(
            options, getattr(options, split), np.random.default_rng([options.seed, KINDS.index(options.kind), k])
        )
        for k, split in enumerate(SPLITS)
    }


def fingerprint(options: PlantedOptions, parts: dict[str, PlantedImages]) -> str:
    """Return the digest of the options and of every image and label."""
    digest = hashlib.sha256(repr(sorted(asdict(options).items())).encode())
    for split in SPLITS:
        digest.update(parts[split].images.tobytes())
        digest.update(parts[split].labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _where(options: PlantedOptions, count: int, rng: np.random.Generator) -> PlantedImages:
    """Draw one 2 x 2 item of each hue, one in each quarter of the image, and a 2 x 2 cue beside one of them."""
    hues = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)  # of the item in each quarter
    corners = rng.integers(3, 6, (count, 4, 2)) + SIDE // 2 * np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    quarter = rng.integers(4, size=count)
    beside = np.arange(count), quarter
    flat = np.zeros((count, SIDE, SIDE, 3), np.int64)
    for k in range(4):
        _stamp(flat, corners[:, k], _HUES[hues[:, k]])
    _stamp(flat, corners[beside] + _STEPS[rng.integers(4, size=count)], np.tile(_CUE, (count, 1)))
    top, left = corners[beside].T
    return PlantedImages(_lit(flat, rng), hues[beside], np.stack([left, top, left + 2, top + 2], 1))


def _what(options: PlantedOptions, count: int, rng: np.random.Generator) -> PlantedImages:
    """Draw one colour on the left, and dots of three hues on the right."""
    named = rng.integers(3, size=count)
    if options.kind == "what":
        dots = rng.choice((FEW, MANY), (count, 3))
        labels = dots[np.arange(count), named] == MANY
    else:
        dots = rng.integers(FEW, MANY + 1, (count, 3))
        labels = dots.sum(1) > MIDDLE + rng.integers(-SPREAD, SPREAD + 1, count)
    flat = np.zeros((count, SIDE, SIDE, 3), np.int64)
    flat[:, :, :LEFT] = _COLOURS[named][:, None, None]
    places = SIDE * (SIDE - RIGHT)
    ends = np.cumsum(dots, 1)
    hue = (np.arange(places) >= ends[:, :, None]).sum(1)  # of each dot in order; 3: none
    lights = np.vstack([_HUES[:3], np.zeros((1, 3), np.int64)])[rng.permuted(hue, axis=1)]
    flat[:, :, RIGHT:] = lights.reshape(count, SIDE, SIDE - RIGHT, 3)
    return PlantedImages(_lit(flat, rng), labels.astype(np.int64), None)


def _stamp(flat: NDArray[np.int64], corners: NDArray[np.int64], hues: NDArray[np.int64]) -> None:
    rows = np.arange(len(flat))
    for down in range(2):
        for across in range(2):
            flat[rows, corners[:, 0] + down, corners[:, 1] + across] = hues


def _lit(flat: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return pixels with noise that is independent of the class."""
    noise = rng.integers(-_NOISE, _NOISE + 1, size=flat.shape)
    return np.clip(_GROUND + _LIGHT * flat + noise, 0, 255).astype(np.uint8)
