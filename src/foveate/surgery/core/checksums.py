"""Checksums of a host's tensors by name, each with the tensor's precision, to see whether a host is what it was."""

from collections.abc import Mapping
from typing import TypeAlias

Checksums: TypeAlias = Mapping[str, tuple[str, int]]


def changed(before: Checksums, now: Checksums) -> list[str]:
    """Return the names of the tensors in both that are not what they were; those in another precision are not compared.

    >>> changed({"a": ("float32", 1), "b": ("float32", 1)}, {"a": ("float32", 2), "b": ("float16", 2), "c": ("", 0)})
    ['a']
    """
    pairs = ((name, before[name], found) for name, found in now.items() if name in before)
    return [name for name, (dtype, value), found in pairs if dtype == found[0] and value != found[1]]
