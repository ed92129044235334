"""What a comparison with the control shows; the control adds the parameters of one arm, so others add more or fewer."""

from collections.abc import Mapping
from typing import Literal

AddedParameters = Mapping[str, int]  # by arm; an arm that was not measured is absent
Size = Literal["more", "as many", "fewer"]

_ALIKE = 0.1  # numbers of parameters that differ by at most this share count as equal
_MEANINGS: dict[tuple[str, Size], str] = {
    ("helps", "more"): "a part of its gain may come from its parameters",
    ("helps", "as many"): "more than its parameters",
    ("helps", "fewer"): "more than its parameters",
    ("hurts", "more"): "plain parameters do better",
    ("hurts", "as many"): "plain parameters do better",
    ("hurts", "fewer"): "more plain parameters do better",
    ("practically equal", "more"): "its gain is just parameters",
    ("practically equal", "as many"): "its gain is just parameters",
    ("practically equal", "fewer"): "more plain parameters do as well",
    ("undecided", "more"): "its gain could be just parameters",
    ("undecided", "as many"): "its gain could be just parameters",
    ("undecided", "fewer"): "more plain parameters may do as well",
}


def size(arm: str, control: str, added: AddedParameters) -> Size:
    """Return whether the arm adds more parameters than the control or fewer; "as many" where one is not known.

    Both are below 0 where attention takes the place of modules that had more.
    """
    own, other = added.get(arm), added.get(control)
    if own is None or other is None or abs(own - other) <= _ALIKE * min(abs(own), abs(other)):
        return "as many"
    return "more" if own > other else "fewer"


def meaning(verdict: str, arm: str, control: str, added: AddedParameters) -> str:
    """Return what the arm's verdict against the control says of its gain, with both sizes where they differ."""
    kind = size(arm, control, added)
    sizes = "" if kind == "as many" else f"; it adds {added[arm]:,} parameters, the control {added[control]:,}"
    return f"{sizes}: {_MEANINGS[verdict, kind]}"
