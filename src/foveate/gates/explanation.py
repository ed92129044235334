"""What `foveate.explain` returns: the maps of one or more arms over the same images; it shows itself."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foveate import files
from foveate.checks import check_least
from foveate.errors import UsageError, counted
from foveate.gates.explorer import explorer_page, words_about
from foveate.gates.figures import Panel, as_img, figure, png, strip
from foveate.gates.layers import PRODUCT, cams, layers, words_of
from foveate.gates.measures import MEASURES
from foveate.gates.overlay import heat, overlay

FILES = ("explorer.html", "numbers.csv")  # that an explanation writes, beside the folder of its pictures
COLUMNS = ("arm", "image", "layer", "gate", "lowest", "highest", *MEASURES, "dead")


@dataclass(frozen=True, repr=False)
class Explanation:
    """The attention of one or more arms over the same images.

    `names` are those of the images, `arms` the maps of each arm (see `foveate.gates.maps.capture`), `classes` the
    names of the classes, and `notes` say what is missing and why.
    """

    names: Sequence[str]
    arms: Mapping[str, Mapping[str, NDArray[Any]]]
    classes: Sequence[str] = ()
    notes: Sequence[str] = field(default=())

    @property
    def numbers(self) -> list[dict[str, Any]]:
        """A row for each arm, image and gate: its lowest and highest value, and `MEASURES`; None where unknown."""
        return list(self._numbers())

    @property
    def dead(self) -> list[str]:
        """The dead gates: constant, the same for every image, or without effect."""
        found = []
        for label, maps in self.arms.items():
            for layer in layers(maps):
                gates = [(gate.kind, gate.dead) for gate in (*layer.heads, *layer.channels)]
                found += [f"{label}, {layer.site or '(model)'} · {kind}: {why}" for kind, why in gates if why]
        return found

    def plot(self, image: int = 0) -> Figure:
        """Return a matplotlib figure of one image: each arm's overlays, Grad-CAM and strips of channel gates.

        Raises UsageError for an image that is not there.
        """
        check_least("image", image, 0)
        if image >= len(self.names):
            raise UsageError(
                expected=f"the number of an image, 0 to {len(self.names) - 1}",
                received=str(image),
                do="choose another",
            )
        rows = []
        for label, maps in self.arms.items():
            rows.append((label, list(self._panels(maps, image))))
            if strips := list(_strips(maps, image)):
                rows.append(("", strips))
        return figure(rows)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `explorer.html`, `numbers.csv` and a PNG of each image, and return the path of the page."""
        folder = Path(folder)
        page, table = (folder / name for name in FILES)
        files.write_bytes(page, self.page().encode())
        files.write_csv(table, self.numbers, COLUMNS)
        for k, name in enumerate(_file_names(self.names)):
            files.write_bytes(folder / "pictures" / f"{name}.png", png(self.plot(k)))
        return page

    def page(self) -> str:
        """Return the explorer, one HTML page that loads nothing."""
        return explorer_page(list(self.arms.items()), self.names, self.classes, "Foveate: where it looks")

    def __str__(self) -> str:
        head = f"{counted(len(self.names), 'image')}, {counted(len(self.arms), 'arm')}: {', '.join(self.arms)}"
        return "\n".join([head, *(f"Dead gate: {one}" for one in self.dead), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shown = as_img(self.plot(), f"Attention over {self.names[0]}") if self.names else ""
        remarks = [*(f"Dead gate: {one}" for one in self.dead), *self.notes]
        return shown + (f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in remarks)}</ul>" if remarks else "")

    def _panels(self, maps: Mapping[str, NDArray], k: int) -> Iterator[Panel]:
        pixels, boxes = maps["images"][k], maps["boxes"][k] if "boxes" in maps else None
        yield Panel(pixels, self.names[k], [words_about(maps, self.classes, k) or "as the model sees it"], boxes=boxes)
        for layer in layers(maps):
            for head in layer.heads:
                if head.kind in ("row", "column") and any(other.kind == PRODUCT for other in layer.heads):
                    continue
                title = f"{layer.site or '(model)'} · {head.kind}"
                span = f"{head.maps[k].min():.3g} to {head.maps[k].max():.3g}"
                words = [*words_of(head.numbers[k]), *([f"dead: {head.dead}"] if head.dead else [])] or [span]
                yield Panel(overlay(pixels, head.maps[k]), title, words, boxes=boxes)
        for cam in cams(maps):
            words = [cam.layer, *words_of(cam.numbers[k])]
            yield Panel(heat(pixels, cam.maps[k]), f"Grad-CAM: {cam.what}", words, boxes=boxes)

    def _numbers(self) -> Iterator[dict[str, Any]]:
        for label, maps in self.arms.items():
            gates = []
            for layer in layers(maps):
                gates += [(layer.site, head.kind, head.maps, head.numbers, head.dead) for head in layer.heads]
                gates += [(layer.site, own.kind, own.gates, own.numbers, own.dead) for own in layer.channels]
            gates += [(cam.layer, f"Grad-CAM: {cam.what}", cam.maps, cam.numbers, "") for cam in cams(maps)]
            for site, kind, values, numbers, dead in gates:
                for k, name in enumerate(self.names):
                    row = dict(zip(MEASURES, map(_known, numbers[k]), strict=True))
                    ends = {"lowest": _known(values[k].min()), "highest": _known(values[k].max())}
                    at = {"arm": label, "image": name, "layer": site, "gate": kind, "dead": dead or None}
                    yield {**at, **ends, **row}


def unseen(label: str, mechanisms: Iterable[Any]) -> list[str]:
    """Return why some mechanisms of an arm have nothing that could be shown."""
    return list(
        dict.fromkeys(f"{label}: nothing of {one} is shown: {one.no_record}." for one in mechanisms if one.no_record)
    )


def check_shown(arms: Mapping[str, Mapping[str, NDArray]], reasons: Sequence[str] = ()) -> None:
    """Raise UsageError if no arm has a gate or Grad-CAM; `reasons` say why."""
    if not any(key.startswith(("gate/", "channel/", "cam")) for maps in arms.values() for key in maps):
        raise UsageError(
            expected="a model with attention",
            received=" ".join([f"{counted(len(arms), 'model')} without a gate that runs", *reasons]),
            do="attach attention to it, or name another arm",
        )


def _strips(maps: Mapping[str, NDArray], k: int) -> Iterator[Panel]:
    for layer in layers(maps):
        for own in layer.channels:
            words = [", ".join(words_of(own.numbers[k])), *([f"dead: {own.dead}"] if own.dead else [])]
            yield strip(own.gates[k], f"{layer.site or '(model)'} · {own.kind}", words)


def _known(value: Any) -> float | None:
    return float(f"{float(value):.6g}") if np.isfinite(value) else None


def _file_names(names: Sequence[str]) -> Iterator[str]:
    """Yield a file name for each image, without characters that a file system may refuse, each only once."""
    taken: set[str] = set()
    for k, name in enumerate(names, 1):
        plain = re.sub(r"[^\w.-]+", "_", Path(name).stem, flags=re.ASCII).strip("._")[:80] or f"image-{k}"
        chosen, number = plain, k
        while chosen.lower() in taken:
            chosen, number = f"{plain}-{number}", number + 1
        taken.add(chosen.lower())
        yield chosen
