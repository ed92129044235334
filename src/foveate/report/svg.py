"""Matplotlib's SVG for a page: no inline style, no metadata, unique ids, colours for light and dark mode."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from foveate.pages import DARK, LIGHT

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FONT = "Inter, -apple-system, Arial, 'Helvetica Neue', sans-serif"

_NAMES = {colour: name for name, colour in LIGHT.items()}
_RC = {
    "svg.fonttype": "none",  # text stays text: in the page's font, searchable, and escaped by the writer
    "svg.hashsalt": "foveate",
    "text.parse_math": False,  # a class may be called "$x$"
    "font.size": 12,
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.labelsize": 11.5,
    "axes.linewidth": 1,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["soft"],
    "ytick.labelcolor": LIGHT["soft"],
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "text.color": LIGHT["ink"],
}


@dataclass(frozen=True)
class Drawing:
    """One plot: `inline` for the page (colours by class, see `css`), `file` for a file; `label` describes it."""

    name: str
    label: str
    inline: str
    file: str


@contextmanager
def drawing() -> Iterator[None]:
    """Use our matplotlib settings, and ignore warnings about glyphs that only the reader's font has."""
    with matplotlib.style.context(["default", _RC]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def finish(figure: Figure, name: str, label: str) -> Drawing:
    """Return the figure as a `Drawing`; call it inside `drawing()`.

    `name` prefixes every id.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(buffer.getvalue())
    _tidy(root, name)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("class", "plot")
    inline = _text(root)
    root.set("font-family", _FONT)
    style = ET.Element("style")
    style.text = css(LIGHT) + "@media (prefers-color-scheme: dark){" + css(DARK) + "}"
    root.insert(0, style)
    return Drawing(name, label, inline, '<?xml version="1.0" encoding="UTF-8"?>\n' + _text(root) + "\n")


def css(colours: dict[str, str]) -> str:
    """The rules for the classes that give a drawing its colours."""
    return "".join(f".f-{name}{{fill:{colour}}}.s-{name}{{stroke:{colour}}}" for name, colour in colours.items())


def _tidy(root: ET.Element, prefix: str) -> None:
    used = set(
        re.findall(r"#([\w-]+)", " ".join(value for element in root.iter() for value in element.attrib.values()))
    )
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tail = None
        if element.tag != f"{{{_SVG}}}text":
            element.text = None
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
        for key in ("id", "clip-path", f"{{{_XLINK}}}href"):
            if key in element.attrib:
                value = element.attrib.pop(key)
                element.attrib[key.split("}")[-1]] = (
                    f"{prefix}-{value}" if key == "id" else value.replace("#", f"#{prefix}-")
                )
        _unstyle(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "width": root.attrib["viewBox"].split()[2]}


def _unstyle(element: ET.Element) -> None:
    classes = []
    for declaration in filter(None, map(str.strip, element.attrib.pop("style", "").split(";"))):
        key, _, value = declaration.partition(":")
        value = value.strip()
        if key == "font-family":
            continue  # the page's font is used
        if key == "font":
            size, weight = re.search(r"([\d.]+)px", value), re.search(r"\b(bold|[5-9]00)\b", value)
            element.attrib |= {"font-size": size[1]} if size else {}
            element.attrib |= {"font-weight": weight[1]} if weight else {}
        elif key in ("fill", "stroke") and value in _NAMES:
            classes.append(f"{key[0]}-{_NAMES[value]}")
            element.set(key, value)
        else:
            element.set(key, value)
    if classes:
        element.set("class", " ".join(classes))


def _text(root: ET.Element) -> str:
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")
