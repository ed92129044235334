"""Make the tree in docs/design/rooms.md from the docstrings; `--write` writes it there, `--check` checks it."""

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "foveate"
PAGE = ROOT / "docs" / "design" / "rooms.md"
ORDER = ROOT / "tests" / "test_imports.py"
HEADING = "## The tree\n"
COLUMN, WIDTH = 30, 120


def main() -> int:
    """Print the tree, write it to the page with --write, or return 1 with --check when the page is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    made = tree(SOURCE, layers())
    page = PAGE.read_text(encoding="utf-8")
    if options.check:
        stale = page != written(page, made)
        print(f"{PAGE.name} is stale: run python tools/tree.py --write" if stale else f"{PAGE.name} is fresh")
        return int(stale)
    if options.write:
        PAGE.write_text(written(page, made), encoding="utf-8")
    else:
        print(made)
    return 0


def layers() -> list[list[str]]:
    """Return LAYERS of tests/test_imports.py, with the names of each layer in source order."""
    for node in ast.parse(ORDER.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name("LAYERS")], value=ast.List(elts=rows)):
                return [[ast.literal_eval(name) for name in row.elts] for row in rows if isinstance(row, ast.Set)]
    raise LookupError(f"{ORDER} has no list LAYERS of sets of names")


def written(page: str, made: str) -> str:
    """Return the page with the tree `made` below its heading."""
    before, heading, after = page.partition(HEADING)
    if not heading:
        raise LookupError(f"the page has no line {HEADING!r}")
    rest = re.sub(r"\A\s*```text\n.*?^```$\n?", "", after, count=1, flags=re.MULTILINE | re.DOTALL).strip()
    return f"{before}{HEADING}\n```text\n{made}\n```\n{f'{chr(10)}{rest}{chr(10)}' if rest else ''}"


def tree(source: Path, order: list[list[str]]) -> str:
    """Write all rooms and files, one layer after another, with an empty line between layers."""
    top = "\n".join(line("", "__init__.py", source / "__init__.py"))
    return "\n\n".join([top, *("\n".join(text for name in layer for text in room(source, name)) for layer in order)])


def room(source: Path, name: str) -> Iterator[str]:
    """Write one name of LAYERS: a folder with its content, or a file."""
    if (source / name).is_dir():
        yield from folder(source / name, "")
    else:
        yield from line("", f"{name}.py", source / f"{name}.py")


def folder(path: Path, indent: str) -> Iterator[str]:
    """Write a folder, its source files and then its folders."""
    head = path / "__init__.py"
    yield from line(indent, f"{path.name}/", head if head.is_file() else None)
    inner = indent + "  "
    for file in sorted(path.iterdir()):
        if file.suffix in (".py", ".h", ".cpp") and file != head:
            yield from line(inner, file.name, file)
    for below in sorted(path.iterdir()):
        if below.is_dir() and any(file.suffix in (".py", ".cpp") for file in below.iterdir()):
            yield from folder(below, inner)


def line(indent: str, name: str, file: Path | None) -> list[str]:
    """Write a name and the first sentence of the file, wrapped."""
    said = first_sentence(file) if file else ""
    head = f"{indent}{name}".ljust(COLUMN)
    return textwrap.wrap(said, WIDTH, initial_indent=f"{head} ", subsequent_indent=" " * (COLUMN + 1)) or [
        head.rstrip()
    ]


def first_sentence(file: Path) -> str:
    """Return the first sentence in the first line of a module's docstring or of a C++ file's first comment."""
    text = file.read_text(encoding="utf-8")
    comment = text.removeprefix("//") if text.startswith("//") else ""
    said = ast.get_docstring(ast.parse(text)) or "" if file.suffix == ".py" else comment
    return re.split(r"(?<=\.) (?=[A-Z`(])", said.strip().partition("\n")[0], maxsplit=1)[0].strip()


if __name__ == "__main__":
    sys.exit(main())
