"""The worked deployment in examples/deploy: an exported detector without torch, and in a browser page."""

import contextlib
import csv
import functools
import http.server
import re
import shutil
import subprocess
import threading
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import foveate
from data.videos import clip
from exporting.test_detector import TinyDetector
from foveate.data.boxes.views import letterboxed
from foveate.detection.boxes import Letterbox
from foveate.models.detectors import detect
from foveate.training.box_predictions import COLUMNS

pytestmark = pytest.mark.slow
SIDE, CLASSES, LIMITS = 96, ["bolt", "nut", "washer"], {"conf": 0.2, "iou": 0.4, "max_det": 9}
PACKAGES = ("onnxruntime", "numpy", "PIL", "av")  # and the libraries beside them
Row = tuple[str, float, list[float]]


def scene(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def expected(image: Image.Image) -> list[Row]:
    """Return class, score and box of what the model itself detects."""
    box = Letterbox(image.size, (SIDE, SIDE))
    (found,) = detect(TinyDetector().eval(), letterboxed(np.asarray(image), box)[None], **LIMITS)
    found = found.on_image(box)
    rows = zip(found.labels, found.scores, found.boxes, strict=True)
    return [(CLASSES[label], float(score), corners.tolist()) for label, score, corners in rows]


def check_equal(found: list[Row], wanted: list[Row]) -> None:
    assert len(found) == len(wanted) > 3
    assert [name for name, *_ in found] == [name for name, *_ in wanted]
    np.testing.assert_allclose([score for _, score, _ in found], [score for _, score, _ in wanted], atol=2e-3)
    np.testing.assert_allclose([box for *_, box in found], [box for *_, box in wanted], atol=0.5)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    about = {"classes": CLASSES, "size": SIDE}
    foveate.export(TinyDetector().eval(), path, (1, 3, SIDE, SIDE), boxes="nms", about=about, **LIMITS)  # pyright: ignore[reportArgumentType]
    return path


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python whose environment has onnxruntime, numpy, Pillow and PyAV, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = Path(onnxruntime.__file__).parent.parent
    for package in PACKAGES:
        for path in (here / package, here / f"{package.replace('PIL', 'pillow')}.libs"):
            if path.is_dir():
                (site / path.name).symlink_to(path)
    python = folder / "bin" / "python"
    code = "import importlib.util as u; print([n for n in ('torch', 'foveate', 'onnx', 'PIL', 'av') if u.find_spec(n)])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == "['PIL', 'av']"
    return python


def test_a_folder_and_videos_by_onnxruntime_alone(
    detector: Path, bare_python: Path, root: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    scene(1).save(photos / "a.png")
    scene(2, 144, 60).resize((72, 30)).save(photos / "more" / "b.png")
    frames = [scene(seed) for seed in (3, 4, 5)]
    frames[0].save(photos / "c.webp", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    (photos / "d.mp4").write_bytes(clip(2, picture=np.asarray(scene(6))))
    scene(7).save(photos / "more" / "A.png")
    scene(8).save(photos / "more" / "a.bmp")
    (photos / "broken.png").write_bytes(b"no image")
    command = [
        bare_python,
        root / "examples/deploy/detect.py",
        detector,
        photos,
        "--pictures",
        "drawn",
        "--threads",
        "1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={})
    assert done.returncode == 3, done.stderr
    assert done.stdout.strip() == "9 images: boxes.csv; not read: 1, see the column error"
    found: dict[tuple[str, str], list[Row]] = {}
    with (tmp_path / "boxes.csv").open(newline="") as file:
        table = csv.DictReader(file)
        assert tuple(table.fieldnames or ()) == COLUMNS
        for row in table:
            if Path(row["file"]).name == "broken.png":
                assert row["error"].startswith("UnidentifiedImageError: cannot identify image file")
                assert not any(row[name] for name in COLUMNS[1:-1])
                continue
            assert row["error"] == ""
            box = [float(row[side]) for side in ("left", "top", "right", "bottom")]
            key = Path(row["file"]).name, row["frame"]
            found.setdefault(key, []).append((row["class"], float(row["confidence"]), box))
    check_equal(found["a.png", ""], expected(scene(1)))
    for number, frame in enumerate(frames):
        check_equal(found["c.webp", str(number)], expected(frame))
    assert {number for name, number in found if name == "d.mp4"} == {"0", "1"}
    with Image.open(photos / "more" / "b.png") as image:
        check_equal(found["b.png", ""], expected(image))
    drawn = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert drawn[:5] == ["A-2.png", "a-3.png", "a.png", "b.png", "c-00000.png"]
    assert len(drawn) == 9


def test_a_file_without_nms_is_refused(detector: Path, bare_python: Path, root: Path, tmp_path: Path) -> None:
    foveate.export(TinyDetector().eval(), tmp_path / "outputs.onnx", (1, 3, SIDE, SIDE))
    command = [bare_python, root / "examples/deploy/detect.py", tmp_path / "outputs.onnx", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={})
    assert done.returncode == 1
    assert "--boxes nms" in done.stderr


@pytest.fixture
def page(detector: Path, root: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the page with the detector, and yield its address."""
    source = root / "examples/deploy/browser"
    package = source / "node_modules" / "onnxruntime-web"
    if not package.is_dir():
        pytest.skip(f"needs onnxruntime-web in {package}: npm install in {source.relative_to(root)} fetches it")
    folder = tmp_path / "page"
    folder.mkdir()
    shutil.copy(source / "index.html", folder)
    for path in (detector, detector.with_name("detector.onnx.json")):
        shutil.copy(path, folder)
    (folder / "node_modules").symlink_to(source / "node_modules")
    with served(folder) as address:
        yield address


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.mark.browser
def test_a_page_detects_in_the_browser(page: str, browser: Any, tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    with browser.new_page() as tab:
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page)
        tab.wait_for_selector("#picture:not([disabled])", timeout=120_000)
        tab.get_by_label("Picture").set_input_files(tmp_path / "a.png")
        tab.wait_for_function("document.getElementById('status').textContent.endsWith('found')", timeout=120_000)
        lines = tab.locator("#boxes li").all_text_contents()
        sizes = tab.evaluate("[canvas.width, canvas.height]")
    found = [re.fullmatch(r"(\w+) (\S+): (\S+) (\S+) (\S+) (\S+)", line) for line in lines]
    rows = [(one[1], float(one[2]), [float(one[k]) for k in range(3, 7)]) for one in found if one]
    check_equal([(name, score, np.clip(box, 0, SIDE).tolist()) for name, score, box in rows], expected(scene(1)))
    assert sizes == [SIDE, SIDE]
    assert all(url.startswith((page, "data:", "blob:")) for url in asked)


@pytest.mark.browser
def test_a_page_shows_why_it_does_not_work(browser: Any, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "examples/deploy/browser/index.html", tmp_path)
    with served(tmp_path) as address, browser.new_page() as tab:
        tab.goto(address)
        tab.wait_for_function("document.getElementById('status').textContent.startsWith('It failed: ')", timeout=20_000)
        assert "ort.wasm.min.mjs" in tab.locator("#status").text_content()
        assert tab.get_by_label("Picture").is_disabled()
