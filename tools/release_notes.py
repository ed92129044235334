"""Print the changelog of the version that a tag names; refuse a tag that is not `v` and the package's version."""

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Print the notes for the tag on the command line; return 1 where there are none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="the tag of the release, such as v0.1.0")
    tag = parser.parse_args().tag
    try:
        print(notes(tag, version(ROOT), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def version(root: Path) -> str:
    """Return `__version__` of the package without importing it."""
    for node in ast.parse((root / "src" / "foveate" / "__init__.py").read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name("__version__")], value=ast.Constant(str(value))):
                return value
    raise ValueError("src/foveate/__init__.py has no __version__")


def notes(tag: str, version: str, changelog: str) -> str:
    """Return the part of the changelog about this version.

    Raises:
        ValueError: the tag is not this version's, or the changelog has no section for the version.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, the version {version}; change __version__, or tag v{version}")
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise ValueError(
            f"CHANGELOG.md has no section for {version}; write its changes below a line "
            f"'## [{version}] - year-month-day'"
        )
    return found[1].strip()


if __name__ == "__main__":
    sys.exit(main())
