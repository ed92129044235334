"""The report of a study: `results.json` and the maps it names in, one self-contained `report.html` and `plots/*.svg` out."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from foveate.errors import DataError
from foveate.explain.colour import palette
from foveate.files import write_bytes
from foveate.report import figures, table
from foveate.report.pictures import pictures
from foveate.report.svg import DARK, LIGHT, Drawing, css
from foveate.report.text import clean
from foveate.report.view import view

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(run: Path) -> Path:
    """Write `report.html` and `plots/*.svg` into the folder of a study and return the page's path.

    Raises DataError when the folder holds no readable `results.json`.
    """
    results = _read(run / "results.json")
    arms = results["arms"]
    measure = str(results.get("measure") or "accuracy")
    plots = {
        "forest": partial(figures.forest, measure=measure),
        "cost": figures.gain_against_cost,
        "gaze": figures.gaze,
    }
    both = {name: _both(draw, arms) for name, draw in plots.items()}
    also = {
        name: _both(partial(figures.forest, measure=name, name=f"also-{k}"), judged)
        for k, (name, judged) in enumerate(table.also(results).items(), 1)
    }
    curves = figures.curves(arms, measure)
    maps = pictures(run, arms, list(map(str, (results.get("data") or {}).get("classes") or [])))
    drawn = {
        "intervals": bool(both["forest"]),
        "also": bool(also),
        "cost": bool(both["cost"]),
        "gaze": bool(both["gaze"]),
        "maps": bool(maps),
        "curves": bool(curves),
    }
    page = _render(view=view(results, drawn), headings=list(table.headings(results).values()), maps=maps, curves=curves, also=also, **both)
    for one in [*(pair[0] for pair in [*both.values(), *also.values()] if pair), *curves]:
        write_bytes(run / "plots" / f"{one.name}.svg", one.file.encode())
    write_bytes(run / "report.html", page.encode())
    return run / "report.html"


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
    raise DataError(expected=expected, received=received, do="give the folder of a study, or run it again with --resume to finish it")


def _both(draw: Any, arms: Sequence[Mapping[str, Any]]) -> tuple[Drawing, Drawing] | None:
    wide = draw(arms)
    return (wide, draw(arms, width=figures.NARROW)) if wide else None


def _render(**parts: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup(_style())
    script = Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; object-src 'none'; connect-src 'none'"
    )
    return environment.get_template("report.html.j2").render(style=style, script=script, policy=policy, **parts)


def _style() -> str:
    """Return the style sheet with the colours of both schemes, shared by the page and its plots."""
    ramp = ", ".join("rgb({}, {}, {})".format(*colour) for colour in palette(9))
    light = _variables({"ground": "#f8f7f4", **LIGHT, "ramp": ramp})
    dark = _variables({"ground": "#121417", **DARK})
    plots = css({name: f"var(--{name})" for name in LIGHT})
    schemes = f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return schemes + plots + "\n" + (_TEMPLATES / "report.css").read_text(encoding="utf-8")


def _variables(values: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in values.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
