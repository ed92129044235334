"""Read maps: the layers of a model in the order they ran, each with its heads and its channel gates; without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from foveate.gates.measures import MEASURES

PRODUCT = "row × column"


@dataclass(frozen=True)
class GateMap:
    """One kind of gate of a layer: its map (n, h, w) for each image, its `MEASURES` (n, 4), and why it is dead."""

    kind: str
    maps: NDArray
    numbers: NDArray
    dead: str = ""


@dataclass(frozen=True)
class Channels:
    """The channel gates (n, C) of a layer, or how much each channel is read, with numbers as in `GateMap`.

    `extremes` (n, 2k) are the k channels that pass most and the k that pass least, and `features` (n, 2k, h, w) what
    enters the gate there; both are None if they were not kept.
    """

    kind: str
    gates: NDArray
    numbers: NDArray
    dead: str = ""
    extremes: NDArray | None = None
    features: NDArray | None = None


@dataclass
class Layer:
    """A site with its heads, and its gates of channels."""

    site: str
    heads: list[GateMap] = field(default_factory=list)
    channels: list[Channels] = field(default_factory=list)


def layers(maps: Mapping[str, NDArray]) -> list[Layer]:
    """Return the layers of maps, as `capture` makes them, without arrays of other shapes, as in a damaged file."""
    found: dict[str, Layer] = {}
    count = len(maps["images"])
    for key, array in maps.items():
        what, _, rest = key.partition("/")
        site, _, kind = rest.rpartition("/")
        good = array.dtype.kind == "f" and array.size and len(array) == count if array.ndim else False
        if what == "gate" and good and array.ndim == 3:
            found.setdefault(site, Layer(site)).heads.append(GateMap(kind, array, *_about(maps, site, kind, count)))
        elif what == "channel" and good and array.ndim == 2:
            own = Channels(kind, array, *_about(maps, site, kind, count), *_extremes(maps, rest, array))
            found.setdefault(site, Layer(site)).channels.append(own)
    return list(found.values())


@dataclass(frozen=True)
class CamMap:
    """Grad-CAM: what it explains, its maps (n, h, w), its `MEASURES` (n, 4), and the layer whose features it weighs."""

    what: str
    maps: NDArray
    numbers: NDArray
    layer: str


def cams(maps: Mapping[str, NDArray]) -> list[CamMap]:
    """Return the Grad-CAM in maps, without arrays of other shapes."""
    count, layer = len(maps["images"]), str(maps.get("cam_layer", ""))
    return [
        CamMap(what, array, _numbers(maps.get(f"cam_numbers/{what}"), count), layer)
        for key, array in maps.items()
        if (what := key.removeprefix("cam/")) != key and array.ndim == 3 and array.size and len(array) == count
    ]


def words_of(numbers: NDArray) -> Iterator[str]:
    """Yield the numbers of one image, (4,), in lines of words, without those that are NaN."""
    inside, area, entropy, saturated = np.asarray(numbers, float)
    if np.isfinite(inside) and np.isfinite(area):
        yield f"inside {100 * inside:.0f} %, area {100 * area:.0f} %"
    rest = [f"entropy {entropy:.2f}"] if np.isfinite(entropy) else []
    rest += [f"saturated {100 * saturated:.0f} %"] if np.isfinite(saturated) else []
    if rest:
        yield ", ".join(rest)


def _about(maps: Mapping[str, NDArray], site: str, kind: str, count: int) -> tuple[NDArray, str]:
    """Return the numbers of a gate, and why it is dead; NaN and nothing where they were not kept."""
    dead = maps.get(f"dead/{site}/{kind}")
    numbers = _numbers(maps.get(f"numbers/{site}/{kind}"), count)
    return numbers, str(dead) if dead is not None and dead.ndim == 0 and dead.dtype.kind == "U" else ""


def _numbers(numbers: NDArray | None, count: int) -> NDArray:
    if numbers is None or numbers.shape != (count, len(MEASURES)) or numbers.dtype.kind != "f":
        return np.full((count, len(MEASURES)), np.nan)
    return numbers


def _extremes(maps: Mapping[str, NDArray], where: str, gates: NDArray) -> tuple[NDArray, NDArray] | tuple[None, None]:
    chosen, features = maps.get(f"extremes/{where}"), maps.get(f"features/{where}")
    if chosen is None or features is None or chosen.ndim != 2 or features.ndim != 4 or not features.size:
        return None, None
    if {chosen.dtype.kind, features.dtype.kind} != {"f"} or chosen.shape != features.shape[:2]:
        return None, None
    known = len(chosen) == len(gates) and ((chosen >= 0) & (chosen < gates.shape[1])).all()
    return (chosen.astype(int), features) if known else (None, None)
