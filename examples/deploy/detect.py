"""Detect objects in images and videos with an exported detector; needs onnxruntime, numpy and pillow, but no torch.

Export a detector with `foveate export runs/train/NAME --boxes nms`, copy the .onnx file, and run

    python detect.py NAME.onnx photos clip.gif --csv boxes.csv --pictures drawn

Videos are animated GIF, WebP and PNG files; others, such as MP4, need PyAV (`pip install av`). The table has the
columns of `foveate predict`: a file that cannot be read gets a row with the error, and the exit code is then 3.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps, ImageSequence

COLUMNS = ("file", "frame", "class", "confidence", "left", "top", "right", "bottom", "error")
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"}
GREY = 0.5  # the border that the detector was trained with


class Detector:
    """An exported detector, which says its classes and the side of its input."""

    def __init__(self, path: Path, threads: int = 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        names = [output.name for output in self.session.get_outputs()]
        if "size" not in about or names != ["boxes", "scores", "labels", "image"]:
            raise SystemExit(f"{path} is no detector with NMS inside: foveate export RUN --boxes nms writes one")
        self.classes: list[str] = json.loads(about["classes"])
        self.side: int = json.loads(about["size"])

    def __call__(self, image: Image.Image) -> list[tuple[str, float, list[float]]]:
        """Return class, confidence and box (left, top, right, bottom in pixels of the image), surest first."""
        scale = min(self.side / image.width, self.side / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        left, top = (self.side - inner[0]) // 2, (self.side - inner[1]) // 2
        pixels = np.asarray(image.resize(inner, Image.Resampling.BILINEAR), np.float32) / 255
        x = np.full((1, 3, self.side, self.side), GREY, np.float32)
        x[0, :, top : top + inner[1], left : left + inner[0]] = pixels.transpose(2, 0, 1)
        found: Any = self.session.run(None, {"images": x})
        factors = np.tile(np.divide(inner, image.size), 2)
        boxes = np.clip((found[0] - [left, top] * 2) / factors, 0, image.size * 2)
        rows = zip(found[2], found[1], boxes, strict=True)
        return [(self.classes[label], float(score), [float(side) for side in box]) for label, score, box in rows]


def shots(path: Path) -> Iterator[tuple[int | None, Image.Image]]:
    """Yield the image in a file, or the number and the image of each frame of a video."""
    if path.suffix.lower() in VIDEOS:
        import av

        with av.open(str(path)) as video:
            for number, frame in enumerate(video.decode(video=0)):
                yield number, frame.to_image()
        return
    with Image.open(path) as image:
        moves = getattr(image, "n_frames", 1) > 1
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            yield number if moves else None, ImageOps.exif_transpose(frame).convert("RGB")


def readable(path: Path) -> Iterator[tuple[int | None, Image.Image | None, str]]:
    """Yield what `shots` yields, and at an error its text without an image."""
    try:
        for frame, image in shots(path):
            yield frame, image, ""
    except Exception as error:  # decoders raise nearly anything
        yield None, None, " ".join(f"{type(error).__name__}: {error}".split())


def files(source: Path) -> list[Path]:
    """Return the images and videos in a folder and its subfolders; or the file itself."""
    if not source.is_dir():
        return [source]
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGES | VIDEOS)


def draw(image: Image.Image, found: list[tuple[str, float, list[float]]], path: Path) -> None:
    """Write the image with its boxes."""
    pen = ImageDraw.Draw(image)
    for name, score, box in found:
        pen.rectangle(box, outline=(255, 60, 60), width=max(1, min(image.size) // 240))
        pen.text((box[0] + 2, box[1] + 1), f"{name} {score:.2f}", fill=(255, 60, 60))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, also where a file system ignores case, and take it."""
    chosen, number = name, 2
    while chosen.lower() in taken:
        chosen, number = f"{name}-{number}", number + 1
    taken.add(chosen.lower())
    return chosen


def main() -> int:
    """Read the options, detect, and write a table and pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the .onnx file")
    parser.add_argument("sources", type=Path, nargs="+", help="folders, images or videos")
    parser.add_argument("--csv", type=Path, default=Path("boxes.csv"), help="file for the table")
    parser.add_argument("--pictures", type=Path, help="folder for the images with their boxes")
    parser.add_argument("--threads", type=int, default=0, help="threads (0: all cores)")
    options = parser.parse_args()
    detector, count, failed, taken = Detector(options.model, options.threads), 0, 0, set[str]()
    with options.csv.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for path in (path for source in options.sources for path in files(source)):
            for frame, image, error in readable(path):
                if image is None:
                    table.writerow([path, *[""] * (len(COLUMNS) - 2), error])
                    failed += 1
                    continue
                found, count = detector(image), count + 1
                for name, score, box in found:
                    numbers = [f"{number:.2f}" for number in box]
                    table.writerow([path, "" if frame is None else frame, name, f"{score:.4f}", *numbers, ""])
                if options.pictures is not None:
                    number = "" if frame is None else f"-{frame:05d}"
                    draw(image, found, options.pictures / f"{free(path.stem + number, taken)}.png")
    print(f"{count} images: {options.csv}" + (f"; not read: {failed}, see the column error" if failed else ""))
    return 3 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
