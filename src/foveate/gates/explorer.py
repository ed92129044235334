"""The explorer: one self-contained HTML page of the attention of all arms over the same images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foveate.gates.colour import UNCHANGED, palette
from foveate.gates.encoded import packed, photo, shrunk
from foveate.gates.layers import PRODUCT, CamMap, Channels, GateMap, Layer, cams, layers
from foveate.gates.overlay import LEVELS
from foveate.pages import clean, render, schemes, script_json

# The most and the fewest cells on a side, and bytes for all; a third more as text.
SIDES_OF_MAPS, SIDES_OF_FEATURES = (56, 14, 9_000_000), (14, 5, 5_000_000)
ROOM = 20_000_000  # bytes for these and for the gates of channels
MOST_BYTES = 30_000_000  # of a page
MANY = 60  # images, from which on they are smaller
SIDES = 448, 320  # greatest width and height in pixels of few and of many images
Arm: TypeAlias = tuple[str, Mapping[str, NDArray]]
_MOST_BOXES = 100
_TEMPLATES = Path(__file__).parent / "templates"


def explorer_page(
    arms: Sequence[Arm], names: Sequence[str], classes: Sequence[str], title: str, credit: str = ""
) -> str:
    """Return the page for the maps of each arm, as `capture` makes them, over images with these names.

    `classes` are the names of labels and predictions, `credit` names the source of the images. An arm may have fewer
    images than there are names. A page that would exceed `MOST_BYTES` shows some of the images, and says so.
    """
    count = len(names)
    page = _page(arms, names, classes, title, credit, count)
    while len(page) > MOST_BYTES and len(names) > 1:
        fitting = max(1, int(0.95 * len(names) * MOST_BYTES / len(page)))
        kept = [int(k) for k in np.linspace(0, len(names) - 1, fitting).round()]
        arms, names = [(label, _some(maps, kept)) for label, maps in arms], [names[k] for k in kept]
        page = _page(arms, names, classes, title, credit, count)
    return page


def _page(
    arms: Sequence[Arm], names: Sequence[str], classes: Sequence[str], title: str, credit: str, count: int
) -> str:
    style = (_TEMPLATES / "explorer.css").read_text(encoding="utf-8")
    ramp = ", ".join("rgb({}, {}, {})".format(*colour) for colour in palette(13))
    data = explorer_data(arms, names, classes)
    return render(
        _TEMPLATES / "explorer.html.j2",
        schemes(ramp=ramp) + style,
        (_TEMPLATES / "explorer.js").read_text(encoding="utf-8"),
        title=clean(title),
        credit=clean(credit),
        data=script_json(data),
        has_boxes=any(image["boxes"] for image in data["images"]),
        dead=[found for arm in data["arms"] if (found := _dead(arm))[1]],
        shown=len(names),
        images=count,
        count=len(data["arms"]),
    )


def _some(maps: Mapping[str, NDArray], kept: list[int]) -> dict[str, NDArray]:
    """Return the maps of some of the images."""
    count = len(maps["images"])
    here = [k for k in kept if k < count]
    return {key: array[here] if array.ndim and len(array) == count else array for key, array in maps.items()}


def explorer_data(arms: Sequence[Arm], names: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Return what the page's script reads, as JSON can hold it."""
    read = [(label, maps, layers(maps)) for label, maps in arms]
    cells = cells_for([layer for _, _, found in read for layer in found])
    side = SIDES[len(names) >= MANY]
    longest: Mapping[str, NDArray] = max((maps for _, maps in arms), key=lambda maps: len(maps["images"]))
    images = [
        {
            "name": clean(str(name)),
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "uri": photo(pixels, side),
            "boxes": outline(longest.get("boxes"), k),
        }
        for k, (name, pixels) in enumerate(zip(names, longest["images"], strict=False))
    ]
    return {
        "images": images,
        "palette": palette(LEVELS).tolist(),
        "unchanged": UNCHANGED,
        "arms": [
            {
                "label": clean(str(label)),
                "words": [clean(words_about(maps, classes, k)) for k in range(len(maps["images"]))],
                "layers": [_layer(layer, *cells) for layer in found],
                "cams": [_cam(cam) for cam in cams(maps)],
            }
            for label, maps, found in read
        ],
    }


def cells_for(found: Sequence[Layer]) -> tuple[int, int]:
    """Return how many cells a side of a map, and of the features of a channel, may have, so that all fit."""
    maps = [head.maps.shape for layer in found for head in layer.heads]
    own = [each.features.shape for layer in found for each in layer.channels if each.features is not None]
    features = [(count * shown, *size) for count, shown, *size in own]
    gates = sum(each.gates.size for layer in found for each in layer.channels)
    share = min(1.0, max(0, ROOM - gates) / (SIDES_OF_MAPS[2] + SIDES_OF_FEATURES[2]))
    first, second = ((most, least, share * room) for most, least, room in (SIDES_OF_MAPS, SIDES_OF_FEATURES))
    return _fitting(maps, *first), _fitting(features, *second)


def _fitting(shapes: Sequence[tuple[int, ...]], most: int, least: int, room: float) -> int:
    """Return the greatest side from `most` down to `least` with which maps (n, h, w) have at most `room` cells."""

    def needed(side: int) -> int:
        return sum(count * min(high, side) * min(wide, side) for count, high, wide in shapes)

    return next((side for side in range(most, least, -1) if needed(side) <= room), least)


def words_about(maps: Mapping[str, NDArray], classes: Sequence[str], k: int) -> str:
    """Return what is true of an image and what an arm says: its classes, or counts of boxes; "" if unknown."""
    counts = {
        key: int(maps[key][k])
        for key in ("objects", "found", "false", "labels", "predictions")
        if _has_count(maps.get(key), k)
    }
    if {"objects", "found", "false"} <= counts.keys():
        return f"{counts['objects']} objects: {counts['found']} found, {counts['false']} false"
    names = {
        key: classes[number] if 0 <= (number := counts[key]) < len(classes) else f"class {counts[key]}"
        for key in ("labels", "predictions")
        if key in counts
    }
    label, guess = names.get("labels"), names.get("predictions")
    if label is None:
        return "" if guess is None else f"predicted as {guess}"
    return label if guess is None else f"{label}, recognised" if label == guess else f"{label}, predicted as {guess}"


def _dead(arm: Mapping[str, Any]) -> tuple[str, list[tuple[str, str, str]], int]:
    """Return the label of an arm, its dead gates (layer, kind, why), and how many gates it has."""
    found = [(layer["site"], kind, why) for layer in arm["layers"] for kind, why in layer["dead"]]
    every = sum(
        sum(head["kind"] != PRODUCT for head in layer["heads"]) + len(layer["channels"]) for layer in arm["layers"]
    )
    return arm["label"], found, every


def _layer(layer: Layer, cells: int, of_features: int) -> dict[str, Any]:
    dead = [(gate.kind, gate.dead) for gate in (*layer.heads, *layer.channels) if gate.dead]
    return {
        "site": clean(layer.site) or "(model)",
        "heads": [_head(head, cells) for head in layer.heads],
        "channels": [_channels(own, of_features) for own in layer.channels],
        "dead": [(clean(kind), clean(why)) for kind, why in dead],
    }


def _head(head: GateMap, cells: int) -> dict[str, Any]:
    maps = [shrunk(np.nan_to_num(one.astype(float)), cells) for one in head.maps]
    high, wide = maps[0].shape
    about = {"kind": clean(head.kind), "dead": clean(head.dead), "numbers": _numbers(head.numbers)}
    return {**about, "height": high, "width": wide, **packed(maps)}


def _channels(own: Channels, cells: int) -> dict[str, Any]:
    found = {
        "kind": clean(own.kind),
        "count": own.gates.shape[1],
        "dead": clean(own.dead),
        "numbers": _numbers(own.numbers),
        **packed(own.gates),
    }
    if own.extremes is None or own.features is None:
        return found
    maps = np.array([[shrunk(one, cells) for one in some] for some in own.features])
    shown, high, wide = maps.shape[1:]
    lowest = maps.min((2, 3), keepdims=True)
    span = np.maximum(maps.max((2, 3), keepdims=True) - lowest, 1e-12)
    features = {"height": high, "width": wide, "shown": shown, **packed((maps - lowest) / span)}
    return {**found, "extremes": own.extremes.tolist(), "features": features}


def _cam(cam: CamMap) -> dict[str, Any]:
    maps = np.nan_to_num(cam.maps.astype(float))
    shown = [shrunk(one, SIDES_OF_MAPS[0]) for one in maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12)]
    high, wide = shown[0].shape
    about = {"what": clean(cam.what), "layer": clean(cam.layer), "numbers": _numbers(cam.numbers)}
    return {**about, "height": high, "width": wide, **packed(shown)}


def _numbers(numbers: NDArray) -> list[list[float | None]]:
    return [[round(float(one), 3) if np.isfinite(one) else None for one in row] for row in numbers]


def _has_count(values: NDArray | None, k: int) -> bool:
    return values is not None and values.ndim == 1 and k < len(values) and values.dtype.kind in "iu"


def outline(boxes: NDArray | None, k: int) -> str:
    """Return an SVG path around the boxes of an image, empty without any; old files hold one box for each image."""
    if (
        boxes is None
        or boxes.ndim not in (2, 3)
        or k >= len(boxes)
        or boxes.shape[-1] != 4
        or boxes.dtype.kind not in "fiu"
    ):
        return ""
    some = boxes[k].reshape(-1, 4)
    some = some[np.isfinite(some).all(1)][:_MOST_BOXES].astype(float).round(2)
    return "".join(f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}Z" for x0, y0, x1, y1 in some if x1 > x0 and y1 > y0)
