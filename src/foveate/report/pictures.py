"""Attention maps as pictures for the page: example images, and each gate as a small overlay, all on one scale."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.gates.colour import UNCHANGED, palette, place
from foveate.gates.encoded import encoded, photo, shrunk, uri
from foveate.gates.explorer import SIDES_OF_MAPS, Arm, outline, words_about
from foveate.pages import clean, script_json

MOST_IMAGES, MOST_PIXELS, TILES, STRIPS = 12, 448, 6, 9
_LEVELS = 65


@dataclass
class Pictures:
    """The data of the template: `images` shared by all arms, and a row of `tiles` for each arm.

    `data` is escaped JSON for the small explorer in the page. `channels` holds the arms that have only channel gates,
    as strips. `boxes` is True if any true box is known. `explorer` are the maps of all arms, for a page of their own.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    arms: list[dict[str, Any]] = field(default_factory=list)
    channels: list[dict[str, Any]] = field(default_factory=list)
    data: str = "[]"
    boxes: bool = False
    explorer: list[Arm] = field(default_factory=list)


def pictures(run: Path, arms: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Pictures | None:
    """Return the maps of the arms that have any; None if there are none.

    An arm with an unreadable file is left out.
    """
    found, small = Pictures(), []
    for arm in arms:
        maps = _load(run, arm.get("maps"))
        gates = (
            {}
            if maps is None
            else {key: value for key, value in maps.items() if key.startswith("gate/") and _is_map(value, maps)}
        )
        label = str(arm.get("label") or arm.get("slug") or "")
        if maps is None:
            continue
        found.explorer.append((label, maps))
        if not gates:
            strips = [
                _strip(label, key, value)
                for key, value in maps.items()
                if key.startswith("channel/") and _is_strip(value)
            ]
            found.channels += [{"label": label, "strips": strips[:STRIPS]}] if strips else []
            continue
        shown = _images(found, maps, classes)
        entries = [_gate(key, value[: len(shown)]) for key, value in gates.items()]
        first = max(range(len(entries)), key=lambda k: entries[k]["contrast"])
        found.arms.append(_row(label, shown, entries[first]))
        small.append({"label": label, "images": shown, "first": first, "gates": entries})
    found.data = script_json(small)
    return found if found.arms or found.channels else None


def _load(run: Path, name: Any) -> dict[str, NDArray] | None:
    if not isinstance(name, str) or not name:
        return None
    try:
        path = (run / name).resolve()
        if not path.is_relative_to(run.resolve()):
            return None
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            maps = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    images = maps.get("images")
    good = images is not None and images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8 and images.size
    return maps if good else None


def _is_map(gate: NDArray, maps: Mapping[str, NDArray]) -> bool:
    return (
        gate.ndim == 3
        and len(gate) >= min(len(maps["images"]), MOST_IMAGES)
        and gate.size > 0
        and gate.dtype.kind == "f"
    )


def _is_strip(gate: NDArray) -> bool:
    return gate.ndim == 2 and gate.size > 0 and gate.dtype.kind == "f"


def _strip(label: str, key: str, gate: NDArray) -> dict[str, Any]:
    site, _, kind = clean(key).removeprefix("channel/").rpartition("/")
    gate = np.nan_to_num(gate[:MOST_IMAGES].astype(float))
    caption = f"{site}{'' if kind == 'channel' else f' · {kind}'}: {_span(gate)}"
    return {
        "words": f"{label}, channels of {caption}",
        "caption": caption,
        "width": gate.shape[1],
        "height": len(gate),
        "uri": _veil(gate),
    }


def _images(found: Pictures, maps: Mapping[str, NDArray], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return each image with the arm's words about it; the pixels are added to the page only once."""
    known = {image["digest"]: image["id"] for image in found.images}
    shown = []
    for i, pixels in enumerate(maps["images"][:MOST_IMAGES]):
        height, width = pixels.shape[:2]
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        if digest not in known:
            known[digest] = f"image-{len(found.images)}"
            size = {"width": width, "height": height}
            found.images.append({"id": known[digest], "digest": digest, **size, "uri": photo(pixels, MOST_PIXELS)})
        boxes = outline(maps.get("boxes"), i)
        found.boxes |= bool(boxes)
        words = words_about(maps, classes, i) or f"image {i + 1}"
        shown.append({"id": known[digest], "width": width, "height": height, "boxes": boxes, "words": words})
    return shown


def _gate(key: str, gate: NDArray) -> dict[str, Any]:
    site, _, kind = clean(key).removeprefix("gate/").rpartition("/")
    gate = np.nan_to_num(gate.astype(float))
    return {
        "name": f"{site} · {kind}" if site else kind,
        "span": _span(gate),
        "note": _note(gate),
        "contrast": float(np.ptp(gate, axis=(1, 2)).mean()),
        "maps": [_veil(shrunk(one, SIDES_OF_MAPS[0])) for one in gate],
    }


def _span(gate: NDArray) -> str:
    return f"from {gate.min():.3f} to {gate.max():.3f}"


def _note(gate: NDArray) -> str:
    """Return a remark on a gate that does almost nothing."""
    if np.abs(gate - 1).max() < UNCHANGED:
        return "It changes all features by less than 1 %."
    return "It is the same everywhere: it does not select a position." if np.ptp(gate) < UNCHANGED else ""


def _row(label: str, shown: list[dict[str, Any]], gate: dict[str, Any]) -> dict[str, Any]:
    tiles = [
        {**image, "image": image["id"], "veil": veil, "words": f"{label}, {gate['name']}: {image['words']}"}
        for image, veil in list(zip(shown, gate["maps"], strict=True))[:TILES]
    ]
    caption = f"{gate['name']}, {gate['span']}. {gate['note']}".strip()
    return {"label": label, "caption": caption, "tiles": tiles}


def _veil(gate: NDArray) -> str:
    picture = Image.fromarray((place(gate) * (_LEVELS - 1)).round().astype(np.uint8))
    picture = picture.convert("L")
    picture.putpalette(palette(_LEVELS).tobytes())
    return uri(encoded(picture, "PNG", optimize=True), "png")
