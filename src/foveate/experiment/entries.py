"""Entries of `--attention`: a mechanism's name, a start and options in one text, such as "cbam-paper:kernel_size=3"."""

from collections.abc import Callable, Sequence
from typing import Any

from foveate import plain_yaml, user_code
from foveate.errors import UsageError
from foveate.mechanisms import create
from foveate.parts import Start


def parse(entry: str) -> tuple[str, Start | None, dict[str, Any]]:
    """Read and check an entry: "cbam-paper:kernel_size=3" is ("cbam", "paper", {"kernel_size": 3}).

    A mechanism in the user's own file is "path/to/file.py:Class", followed by the same start and options.
    """
    name, start, pairs = _split(entry)
    given = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(
                expected="options as name:option=value", received=repr(entry), do="write for example se:reduction=8"
            )
        try:
            given[option.strip()] = plain_yaml.load(value)
        except Exception:  # damaged YAML raises nearly anything
            raise UsageError(
                expected="a plain value", received=repr(pair), do="write for example reduction=8"
            ) from None
    mechanism = create(name, **given)
    return name if user_code.is_own(name) else mechanism.name, start, given


def located(entries: str) -> str:
    """Return comma-separated entries with the absolute path of the file of each of the user's own mechanisms."""
    return renamed(entries, user_code.located)


def without_folders(entries: str) -> str:
    """Return comma-separated entries without the folder of the file of each of the user's own mechanisms."""
    return renamed(entries, user_code.short_name)


def own_names(entries: Sequence[str]) -> list[str]:
    """Return the names of the user's own mechanisms, in alphabetical order."""
    return sorted({name for name, _, _ in map(_split, entries) if user_code.is_own(name)})


def renamed(entries: str, rename: Callable[[str], str]) -> str:
    """Return comma-separated entries with other names of the user's own mechanisms."""
    new = []
    for entry in map(str.strip, entries.split(",")):
        name = _split(entry)[0]
        new.append(rename(name) + entry.removeprefix(name) if user_code.is_own(name) else entry)
    return ",".join(new)


def _split(entry: str) -> tuple[str, Start | None, list[str]]:
    head, *pairs = entry.strip().split(":")
    if pairs and "=" not in pairs[0] and ("." in head or "/" in head):
        head = f"{head}:{pairs.pop(0)}"
    start: Start | None = "identity" if head.endswith("-identity") else "paper" if head.endswith("-paper") else None
    return head.removesuffix(f"-{start}"), start, pairs
