"""Tests of many combinations: `make test` runs a part of them, `make test-all` every one."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import pytest


def thinned(one_in: int, **axes: Mapping[str, Any] | Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize by every combination of the named axes, and mark all but one in `one_in` as slow.

    The fast combinations are on diagonals, so that the values of an axis alternate. The keys of a mapping are the ids
    of its values. Raises ValueError if only slow tests would use a value of an axis.
    """
    labelled = [
        list(axis.items()) if isinstance(axis, Mapping) else [(_label(value), value) for value in axis]
        for axis in axes.values()
    ]
    cases, tried = [], [set[int]() for _ in labelled]
    for place in product(*map(range, map(len, labelled))):
        names, values = zip(*(axis[k] for axis, k in zip(labelled, place, strict=True)), strict=True)
        stays = sum(place) % one_in == 0
        cases.append(pytest.param(*values, id="-".join(names), marks=() if stays else pytest.mark.slow))
        for k, seen in zip(place, tried, strict=True):
            seen.update([k] if stays else [])
    if [len(seen) for seen in tried] != [len(axis) for axis in labelled]:
        raise ValueError(f"one in {one_in} leaves a value of {' or '.join(axes)} out")
    return pytest.mark.parametrize(list(axes), cases)


def _label(value: Any) -> str:
    """Return the id of a value; the parts of a pair, such as a layout and a dtype, are joined, but not a shape."""
    apart = isinstance(value, tuple) and not all(isinstance(one, int) for one in value)
    return "-".join(map(_label, value)) if apart else str(value)
