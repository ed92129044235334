"""Gates as matplotlib figures: a recording, or one image with all that attends to it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from foveate.errors import UsageError
from foveate.gates.draw_boxes import writable
from foveate.gates.encoded import uri
from foveate.gates.kinds import CHANNEL_KINDS
from foveate.gates.overlay import colours, overlay

ACROSS = 6  # panels side by side
_SIDE, _GAP, _LINE, _STRIP, _HEADING = 200, 14, 13, 26, 26  # pixels: of a panel, between them, of a line of words, ...
_DPI = 100


@dataclass(frozen=True)
class Panel:
    """An image (H, W, 3) below a title and lines of words; a `strip` is one row of colours for each channel."""

    pixels: NDArray[np.uint8]
    title: str
    words: Sequence[str] = ()
    strip: bool = False
    boxes: NDArray | None = None


def figure(rows: Sequence[tuple[str, Sequence[Panel]]], across: int = ACROSS) -> Figure:
    """Return a figure of rows of panels, each row under its heading.

    All pixels are one image, because a hundred axes take matplotlib seconds.
    """
    lines = [
        (heading if k == 0 else "", row[k : k + across]) for heading, row in rows for k in range(0, len(row), across)
    ]
    width = max(len(line) for _, line in lines) * (_SIDE + _GAP) + _GAP
    height = sum(_height(heading, line) for heading, line in lines) + _GAP
    canvas = np.full((height, width, 3), 255, np.uint8)
    with matplotlib.rc_context({"text.parse_math": False, "font.family": ["DejaVu Sans"]}):
        made = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        ax = made.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        ax.set_xlim(-0.5, width - 0.5)
        ax.set_ylim(height - 0.5, -0.5)
        top = 0
        for heading, line in lines:
            low = top + _height(heading, line)
            if heading:
                ax.text(_GAP, top + _GAP, writable(heading)[:120], fontsize=10, weight="bold", va="top")
            for k, panel in enumerate(line):
                _draw(ax, canvas, panel, _GAP + k * (_SIDE + _GAP), low)
            top = low
        ax.imshow(canvas, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest", aspect="auto")
    return made


def recording_figure(gates: Sequence[Any], images: Any = None, most: int = 4) -> Figure:
    """Return a figure of recorded gates, as `Recording.plot` says."""
    if not gates:
        raise UsageError(
            expected="a recording with gates",
            received="none",
            do="call the model inside the block; only models with attention have gates",
        )
    rows = []
    for recorded in gates:
        gate = np.asarray(recorded.gate, float)[:most]
        panels = []
        for k, one in enumerate(gate):
            title, words = f"sample {k + 1}", [f"{one.min():.3g} to {one.max():.3g}"]
            if recorded.kind in CHANNEL_KINDS or one.ndim != 3:
                panels.append(strip(one.reshape(len(one), -1)[:, 0], title, words))
                continue
            map_ = np.broadcast_to(one.mean(0), recorded.size)
            pixels = colours(map_) if images is None else overlay(np.asarray(images[k]), map_)
            panels.append(Panel(pixels, title, words))
        rows.append((f"{recorded.site or '(model)'} · {recorded.kind}", panels))
    return figure(rows, max(1, most))


def strip(gate: NDArray, title: str, words: Sequence[str]) -> Panel:
    """Return the channel gates (C,) of an image, greatest first."""
    return Panel(colours(np.sort(gate)[::-1])[None], title, words, strip=True)


def png(made: Figure) -> bytes:
    """Return a figure as a PNG file, without a date."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def as_img(made: Figure, words: str) -> str:
    """Return a figure as an HTML image; `words` describe it."""
    return f'<img alt="{escape(words)}" src="{uri(png(made), "png")}">'


def _height(heading: str, line: Sequence[Panel]) -> int:
    words = max(1 + len(panel.words) for panel in line)
    return max(_size(panel)[1] for panel in line) + words * _LINE + _GAP + _HEADING * bool(heading)


def _size(panel: Panel) -> tuple[int, int]:
    """Return the width and height in pixels of a panel, which keeps the shape of its image."""
    high, wide = panel.pixels.shape[:2]
    return (_SIDE, _STRIP) if panel.strip else (_SIDE, max(1, round(_SIDE * high / wide)))


def _draw(ax: Axes, canvas: NDArray[np.uint8], panel: Panel, left: int, low: int) -> None:
    """Draw a panel whose lower left corner is there."""
    wide, high = _size(panel)
    top = low - high
    resampling = Image.Resampling.NEAREST if panel.strip else Image.Resampling.BILINEAR
    canvas[top:low, left : left + wide] = np.asarray(Image.fromarray(panel.pixels).resize((wide, high), resampling))
    if panel.boxes is not None:
        scale = np.array([wide, high, wide, high]) / np.array(panel.pixels.shape[1::-1] * 2)
        for x0, y0, x1, y1 in panel.boxes[np.isfinite(panel.boxes).all(1)] * scale:
            xs, ys = np.array((x0, x1, x1, x0, x0)), np.array((y0, y0, y1, y1, y0))
            ax.plot(left + xs - 0.5, top + ys - 0.5, color="white", linewidth=1, dashes=(3, 2))
    text = "\n".join(map(_fit, (panel.title, *panel.words)))
    ax.text(left, top - 3, text, fontsize=7, va="bottom", linespacing=1.25)


def _fit(text: str, most: int = 36) -> str:
    text = writable(" ".join(text.split()))
    return text if len(text) <= most else text[: most // 2 - 1] + "…" + text[-most // 2 :]
