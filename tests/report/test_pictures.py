"""The maps of the page: one scale for every gate, photos small, true boxes where they are known."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.gates.colour import palette
from foveate.report.pictures import Pictures, pictures

GREY = palette(65)[32].tolist()


def shown(run: Path, **maps: Any) -> Pictures:
    """The images of one arm whose maps.npz holds these arrays."""
    np.savez(run / "maps.npz", allow_pickle=False, **({"images": np.zeros((1, 8, 8, 3), np.uint8)} | maps))
    found = pictures(run, [{"label": "SE", "maps": "maps.npz"}], [])
    assert found is not None
    return found


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def veil(run: Path, gate: Any) -> np.ndarray:
    return pixels(shown(run, **{"gate/s/spatial": np.asarray([gate], np.float32)}).arms[0]["tiles"][0]["veil"])


def test_a_gate_that_changes_less_than_a_percent_is_grey(tmp_path: Path) -> None:
    assert (veil(tmp_path, [[0.999, 1.0], [0.9995, 1.001]]) == GREY).all()
    assert (veil(tmp_path, [[0.95, 1.0], [1.05, 1.0]]) != GREY).any()


def test_the_same_gate_has_the_same_colour_next_to_any_other(tmp_path: Path) -> None:
    narrow, wide = veil(tmp_path, [[0.5, 0.6]]), veil(tmp_path, [[0.5, 1.9]])
    assert narrow[0, 0].tolist() == wide[0, 0].tolist()
    assert narrow[0, 0, 2] > narrow[0, 0, 0]  # below 1: blue
    assert wide[0, 1, 0] > wide[0, 1, 2]  # above 1: red


@pytest.mark.parametrize(
    ("gate", "note"),
    [
        ([[0.995, 1.0]], "It changes all features by less than 1 %."),
        ([[0.5, 0.501]], "It is the same everywhere: it does not select a position."),
        ([[0.5, 0.7]], ""),
    ],
)
def test_a_gate_that_does_little_has_a_remark(tmp_path: Path, gate: list[list[float]], note: str) -> None:
    row = shown(tmp_path, **{"gate/s/spatial": np.asarray([gate], np.float32)}).arms[0]
    assert row["caption"] == f"s · spatial, from {gate[0][0]:.3f} to {gate[0][1]:.3f}. {note}".strip()


def test_channel_gates_are_on_the_same_scale(tmp_path: Path) -> None:
    (strip,) = shown(tmp_path, **{"channel/s/channel": np.array([[1.0, 0.5, 1.0]], np.float32)}).channels[0]["strips"]
    colours = pixels(strip["uri"])[0].tolist()
    assert colours[0] == colours[2] == GREY
    assert colours[1] == veil(tmp_path, [[0.5, 0.6]])[0, 0].tolist()


def test_true_boxes_are_known_or_not(tmp_path: Path) -> None:
    gate = {"gate/s/spatial": np.ones((1, 2, 2), np.float32)}
    assert not shown(tmp_path, **gate).boxes
    assert not shown(tmp_path, **gate, boxes=np.full((1, 2, 4), np.nan)).boxes
    assert shown(tmp_path, **gate, boxes=np.array([[[1.0, 1.0, 4.0, 4.0]]])).boxes


def test_photos_are_jpeg_and_small_drawings_png(tmp_path: Path) -> None:
    gate = {"gate/s/spatial": np.ones((8, 13, 13), np.float32)}
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 13, 13, 3), dtype=np.uint8)
    photos = np.stack([np.asarray(Image.fromarray(one).resize((416, 416), Image.Resampling.BICUBIC)) for one in coarse])
    photos = (photos + rng.normal(0, 4, photos.shape)).clip(0, 255).astype(np.uint8)
    found = shown(tmp_path, **gate, images=photos)
    assert all(image["uri"].startswith("data:image/jpeg;base64,") for image in found.images)
    assert sum(len(image["uri"]) for image in found.images) < 400_000
    assert np.abs(pixels(found.images[0]["uri"]).astype(float) - photos[0]).mean() < 8
    drawing = np.zeros((8, 32, 32, 3), np.uint8)
    drawing[:, 8:20, 8:20] = 255
    assert shown(tmp_path, **gate, images=drawing).images[0]["uri"].startswith("data:image/png;base64,")
