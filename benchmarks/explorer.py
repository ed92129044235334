"""The explorer of 200 images at 16 layers: the size of its page, and the time until Chromium has painted it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import make_record, measure_calls
from benchmarks.options import Options
from foveate.experiment.environment import load_average
from foveate.gates.explorer import explorer_page
from foveate.gates.maps import CELLS, EXTREMES, Maps

IMAGES, ARMS, SIDE = 200, (1, 3), 224
# Those of ResNet-50 at 224 pixels: the cells on a side and the channels of a stage, and its blocks.
STAGES = ((56, 256, 3), (28, 512, 4), (14, 1024, 6), (7, 2048, 3))
LAYERS = sum(blocks for _, _, blocks in STAGES)
BLANK, EXPLORER = "blank page", "explorer"
TARGET = {"seconds": 2.0, "bytes": 30_000_000}
_PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def measure(options: Options, *, images: int = IMAGES) -> Iterator[dict[str, Any]]:
    """Yield one record: bytes of the page and time to open it by the number of arms, beside that of a blank page."""
    from playwright.sync_api import sync_playwright

    before, results = load_average(), []
    pages = {arms: page_of(arms, images) for arms in ARMS}
    chromium: Any = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as session, tempfile.TemporaryDirectory() as folder:
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        sheet = browser.new_page(viewport={"width": 1280, "height": 900})
        blank = _written(Path(folder) / "blank.html", "<!doctype html><title>Blank</title><h1>Blank</h1>")
        for arms, html in pages.items():
            print(f"explorer of {arms} arms", flush=True)
            file = _written(Path(folder) / f"{arms}.html", html)

            def opened(address: str) -> None:
                sheet.goto(address)
                sheet.evaluate(_PAINTED)

            calls = {BLANK: lambda: opened(blank), EXPLORER: lambda file=file: opened(file)}
            timings = measure_calls(calls, BLANK, options.rounds)
            opened(file)
            about = {"images": images, "layers": LAYERS, "shown": sheet.locator("#picture option").count()}
            results.append({"arms": arms, **about, "bytes": len(html.encode()), "target": TARGET, "calls": timings})
        version = browser.version
        browser.close()
    yield {**make_record("explorer", options.rounds, before, results), "packages": {"Chromium": version}}


def page_of(arms: int, images: int) -> str:
    """Return the explorer of so many arms over crops of one photo."""
    names, photos = [f"photo-{k + 1}.jpg" for k in range(images)], crops(images)
    maps = [(f"arm {k + 1}", maps_of(photos, k)) for k in range(arms)]
    return explorer_page(maps, names, ["cat", "dog"], "Where it looks")


def crops(count: int) -> NDArray[np.uint8]:
    """Return parts (count, SIDE, SIDE, 3) of the photo that comes with matplotlib."""
    rng = np.random.default_rng(0)
    with Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg") as opened:
        photo = opened.convert("RGB")
    found = []
    for _ in range(count):
        side = int(rng.integers(SIDE, min(photo.size)))
        left, top = (int(rng.integers(0, most - side + 1)) for most in photo.size)
        found.append(np.asarray(photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))))
    return np.stack(found)


def maps_of(photos: NDArray[np.uint8], seed: int) -> Maps:
    """Return maps of CBAM at every block, with Grad-CAM and the numbers of each, as `capture` makes them."""
    rng, count = np.random.default_rng(seed), len(photos)
    numbers = rng.uniform(size=(count, 4)).astype(np.float32)
    maps: Maps = {"images": photos, "labels": np.zeros(count, int), "predictions": np.arange(count) % 2}
    maps["boxes"] = np.tile(np.array([20, 30, 150, 180], np.float32), (count, 1, 1))
    blocks = [(cells, channels) for cells, channels, blocks in STAGES for _ in range(blocks)]
    for k, (cells, channels) in enumerate(blocks):
        site, shown = f"block{k + 1}", min(cells, CELLS)
        maps[f"gate/{site}/spatial"] = rng.uniform(0, 2, (count, cells, cells)).astype(np.float32)
        maps[f"channel/{site}/channel"] = rng.uniform(0, 2, (count, channels)).astype(np.float32)
        maps[f"extremes/{site}/channel"] = np.tile(np.arange(2 * EXTREMES, dtype=np.float32), (count, 1))
        maps[f"features/{site}/channel"] = rng.normal(size=(count, 2 * EXTREMES, shown, shown)).astype(np.float32)
        maps |= {f"numbers/{site}/spatial": numbers, f"numbers/{site}/channel": numbers}
    cam = rng.uniform(size=(count, 7, 7)).astype(np.float32)
    return maps | {"cam/predicted class": cam, "cam_numbers/predicted class": numbers, "cam_layer": np.array("layer4")}


def _written(path: Path, html: str) -> str:
    path.write_text(html, encoding="utf-8")
    return path.as_uri()
