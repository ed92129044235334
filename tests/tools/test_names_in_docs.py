"""Every `foveate...` name that a page writes in its text exists; blocks of code are run by tools/run_readme.py."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NAME = re.compile(r"`(foveate(?:\.[A-Za-z_]\w*)+)")


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute of one or of a class in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_the_text_exist(page: Path) -> None:
    names = set(NAME.findall(page.read_text(encoding="utf-8")))
    # Keras takes seconds to import, and transformers has an environment of its own.
    others = {name for name in names if not name.startswith(("foveate.keras", "foveate.transformers"))}
    assert sorted(name for name in others if not exists(name)) == []


def test_a_name_that_is_not_there_is_found() -> None:
    assert NAME.findall("use `foveate.normalisation.carry(model)`") == ["foveate.normalisation.carry"]
    assert not exists("foveate.normalisation.carry")
    assert not exists("foveate.no_such_room")
    assert exists("foveate.normalisation.set_normalisation")
