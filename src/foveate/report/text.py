"""Make the texts of a record safe to show: names of classes, files and models come from outside."""

import json
import math
import unicodedata
from typing import Any

_LONGEST = 4000


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
