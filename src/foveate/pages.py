"""HTML pages of one file: safe texts from outside, data for a script, colours, and a policy that loads nothing."""

import base64
import hashlib
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

LIGHT = {
    "ink": "#1c2024",
    "soft": "#5f666d",
    "line": "#dcdad4",
    "paper": "#fffffe",
    "helps": "#0a7566",
    "hurts": "#b13c26",
    "calm": "#5b636d",
    "accent": "#2c5aa6",
}
DARK = {
    "ink": "#eceae5",
    "soft": "#a3a9b0",
    "line": "#3a3f46",
    "paper": "#1a1d21",
    "helps": "#4fcab3",
    "hurts": "#ff9279",
    "calm": "#9ba4ae",
    "accent": "#8db5f7",
}
_GROUND = {"light": "#f8f7f4", "dark": "#121417"}
_LONGEST = 4000


def render(template: Path, style: str, script: str, **parts: Any) -> str:
    """Return a page made from a Jinja template, whose policy allows only this style and this script."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; object-src 'none'; connect-src 'none'"
    )
    safe = {"style": Markup(style), "script": Markup(script), "policy": policy}
    return environment.get_template(template.name).render(**safe, **parts)


def schemes(**more: str) -> str:
    """Return the style rules that give a page its colours, light and dark; `more` are further variables."""
    light = _variables({"ground": _GROUND["light"], **LIGHT, **more})
    dark = _variables({"ground": _GROUND["dark"], **DARK})
    return (
        f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def clean(value: Any) -> Any:
    """Return the record with safe texts: no control or direction-changing characters, no endless text, no NaN."""
    if isinstance(value, str):
        text = "".join(
            "\N{REPLACEMENT CHARACTER}" if _is_hidden(character) else character for character in value[: _LONGEST + 1]
        )
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    if isinstance(value, dict):
        return {clean(str(key)): clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def script_json(value: Any) -> str:
    r"""JSON that neither ends the script element that holds it, nor is read as markup in it.

    >>> script_json(["</script>"])
    '["\\u003c/script\\u003e"]'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _is_hidden(character: str) -> bool:
    # Line breaks are kept, and the joiners that emoji, Persian and Indic names need; XML allows neither of the two
    # non-characters.
    wanted = character in "\n\t\u200c\u200d"
    return (unicodedata.category(character) in ("Cc", "Cf", "Cs") or character in "\ufffe\uffff") and not wanted


def _variables(values: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in values.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
