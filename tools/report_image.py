"""Save a screenshot of the top of a report: `python tools/report_image.py runs/study/NAME docs/images/report.png`."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, SHOWN = 1120, 960  # pixels: width of the window, and size of the picture


def main(run: Path, image: Path) -> None:
    """Open the page of a study in a headless Chromium, in light colours, and save its top."""
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        bottom = page.evaluate("document.querySelector('#intervals .plot-figure').getBoundingClientRect().bottom")
        whole = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom + 12}, full_page=True)
        browser.close()
    picture = Image.open(io.BytesIO(whole)).convert("RGB")
    picture = picture.resize((SHOWN, round(picture.height * SHOWN / WIDTH)), Image.Resampling.LANCZOS)
    picture.quantize(128, dither=Image.Dither.NONE).save(image, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
