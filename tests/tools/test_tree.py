"""The tree on the page about rooms is made from the sources, in the order of the layers."""

import sys
from pathlib import Path

import pytest

from tools import tree


def test_the_page_shows_the_tree() -> None:
    page = tree.PAGE.read_text(encoding="utf-8")
    assert page == tree.written(page, tree.tree(tree.SOURCE, tree.layers())), "run python tools/tree.py --write"


def test_every_source_file_is_in_it_once() -> None:
    shown = [
        line.split()[0]
        for line in tree.tree(tree.SOURCE, tree.layers()).splitlines()
        if line.strip() and line[0:29].strip()
    ]
    files = [
        path.name for kind in ("*.py", "*.h", "*.cpp") for path in tree.SOURCE.rglob(kind) if path.name != "__init__.py"
    ]
    folders = [f"{path.parent.name}/" for path in tree.SOURCE.rglob("__init__.py") if path.parent != tree.SOURCE]
    assert sorted(shown) == sorted(["__init__.py", "cpu/", *files, *folders])


def small(folder: Path) -> Path:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "__init__.py").write_text('"""All of it. More of it."""')
    (folder / "a" / "__init__.py").write_text('"""The room a,\nwhich is large."""')
    (folder / "a" / "one.py").write_text("x = 1")
    (folder / "a" / "b" / "two.cpp").write_text("// Compiled: e.g. by hand.\n// More.\n#include <a>")
    (folder / "c.py").write_text(f'"""{"word " * 40}end."""')
    return folder


def test_the_first_sentences_stand_beside_the_names(tmp_path: Path) -> None:
    lines = tree.tree(small(tmp_path), [["c"], ["a"]]).splitlines()
    assert lines[0].split(maxsplit=1) == ["__init__.py", "All of it."]
    assert [len(line) <= tree.WIDTH for line in lines] == [True] * len(lines)
    assert lines[-4:] == [
        "a/".ljust(31) + "The room a,",
        "  one.py",
        "  b/",
        "    two.cpp".ljust(31) + "Compiled: e.g. by hand.",
    ]


def test_the_page_is_written_at_its_heading_and_the_rest_stays() -> None:
    page = f"before\n\n{tree.HEADING}\n```text\nold\n```\n\nafter\n"
    once = tree.written(page, "new")
    assert once == f"before\n\n{tree.HEADING}\n```text\nnew\n```\n\nafter\n"
    assert tree.written(once, "new") == once
    assert tree.written(f"before\n{tree.HEADING}", "new") == f"before\n{tree.HEADING}\n```text\nnew\n```\n"


def test_a_page_without_the_heading_is_refused() -> None:
    with pytest.raises(LookupError, match="The tree"):
        tree.written("no heading", "new")


def test_write_mends_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "rooms.md"
    page.write_text(f"# Rooms\n\n{tree.HEADING}\n```text\nstale\n```\n")
    monkeypatch.setattr(tree, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["tree.py", "--check"])
    assert tree.main() == 1
    monkeypatch.setattr(sys, "argv", ["tree.py", "--write"])
    assert tree.main() == 0
    monkeypatch.setattr(sys, "argv", ["tree.py", "--check"])
    assert tree.main() == 0
    assert "stale" not in page.read_text()
    assert "mechanisms/" in page.read_text()
