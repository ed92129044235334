"""Build the report of a study from `results.json` and the maps: one self-contained `report.html`, and `plots/*.svg`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate.errors import DataError
from foveate.files import write_bytes
from foveate.gates.colour import palette
from foveate.gates.explorer import explorer_page
from foveate.pages import LIGHT, clean, render, schemes
from foveate.report.csv_files import csv_files
from foveate.report.pictures import Pictures, pictures
from foveate.report.plots import plots
from foveate.report.svg import css
from foveate.report.view import EXPLORER, FILES, view

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(run: str | os.PathLike[str]) -> Path:
    """Write `report.html` and `plots/*.svg` into the folder of a study and return the page's path.

    Raises DataError if the folder holds no readable `results.json`.
    """
    run = Path(run)
    results = _read(run / "results.json")
    figures = plots(results)
    maps = pictures(run, results["arms"], list(map(str, (results.get("data") or {}).get("classes") or [])))
    for one in figures.files():
        write_bytes(run / "plots" / f"{one.name}.svg", one.file.encode())
    if maps is not None:
        write_bytes(run / EXPLORER, _explorer(maps, results).encode())
    tables = csv_files(run, results)
    there = [name for name in FILES if (run / name).is_file()]
    page = render(
        _TEMPLATES / "report.html.j2",
        _style(),
        (_TEMPLATES / "report.js").read_text(encoding="utf-8"),
        view=view(results, figures, maps, there),
        plots=figures,
        maps=maps,
        tables=tables,
        explorer=EXPLORER,
    )
    write_bytes(run / "report.html", page.encode())
    return run / "report.html"


def _explorer(maps: Pictures, results: Mapping[str, Any]) -> str:
    """Return the explorer of the arms' maps."""
    model, data = (str((results.get(key) or {}).get("name", "?")) for key in ("model", "data"))
    count = max(len(arrays["images"]) for _, arrays in maps.explorer)
    classes = list(map(str, (results.get("data") or {}).get("classes") or []))
    names = [f"image {k}" for k in range(1, count + 1)]
    credit = str((results.get("args") or {}).get("credit") or "")
    return explorer_page(maps.explorer, names, classes, f"Where {model} looks in {data}", credit)


def _read(path: Path) -> dict[str, Any]:
    expected = "the results.json of a finished study"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict) or results.get("schema") != 2 or not isinstance(results.get("arms"), list):
            raise ValueError("not a study's record of schema 2")
        return clean(results)
    except FileNotFoundError:
        received = f"no file {path}"
    except (OSError, ValueError, RecursionError) as error:
        received = f"{path}: {error}"
    raise DataError(
        expected=expected,
        received=received,
        do="give the folder of a study, or run it again with --resume to finish it",
    )


def _style() -> str:
    """Return the style sheet with the colours of both schemes, shared by the page and its plots."""
    ramp = ", ".join("rgb({}, {}, {})".format(*colour) for colour in palette(13))
    plots = css({name: f"var(--{name})" for name in LIGHT})
    return schemes(ramp=ramp) + plots + "\n" + (_TEMPLATES / "report.css").read_text(encoding="utf-8")
