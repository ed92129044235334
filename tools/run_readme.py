"""Run every fenced block of Markdown files, to prove that each works as shown.

Each `python` block runs in a new process, and must print the text of each comment `# -> text` beside a `print`. In `sh`
and `console` blocks, `foveate ...` runs, `make ...` must name targets of the Makefile (CI runs those elsewhere), and
set-up commands (git, cd, pip) are listed and skipped. `text` blocks are output. Any other block or command is an error.
The blocks of a file run one after another in one temporary folder, which is empty at first. With `--together` the
`python` blocks of a file are one program, as on a page that explains one thing step by step.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SET_UP = {"git", "cd", "pip"}
TIMEOUT = 900


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text and the line it starts on."""

    language: str
    text: str
    line: int


class BlockError(Exception):
    """A block fails; the text says how."""


def main() -> int:
    """Run the files named on the command line; return 1 if any block failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("markdown", type=Path, nargs="+")
    parser.add_argument("--together", action="store_true", help="the python blocks of a file are one program")
    parser.add_argument("--makefile", type=Path, default=Path("Makefile"))
    options = parser.parse_args()
    targets = set(re.findall(r"^([a-z][\w-]*):", options.makefile.read_text(encoding="utf-8"), re.MULTILINE))
    return 1 if sum([try_file(markdown, targets, options.together) for markdown in options.markdown]) else 0


def try_file(markdown: Path, targets: set[str], together: bool) -> int:
    """Run the blocks of one file, print the result of each, and return the number of failures."""
    failures = 0
    blocks = list(fenced(markdown.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        for block in joined(blocks) if together else blocks:
            place, began = f"{markdown}:{block.line}", time.monotonic()
            try:
                done = run(block, targets, folder)
                print(f"ok    {place} {done} ({time.monotonic() - began:.1f} s)", flush=True)
            except BlockError as error:
                failures += 1
                print(f"FAIL  {place}\n{error}", flush=True)
    return failures


def fenced(markdown: str) -> Iterator[Block]:
    r"""Yield the fenced blocks in order.

    >>> [(b.language, b.text, b.line) for b in fenced("a\n```python\nx = 1\n```\n")]
    [('python', 'x = 1\n', 2)]
    """
    for match in re.finditer(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```[ \t]*$", markdown, re.MULTILINE | re.DOTALL):
        yield Block(match[1], match[2], markdown.count("\n", 0, match.start()) + 1)


def joined(blocks: list[Block]) -> list[Block]:
    """Join all python blocks into one, at the position of the first."""
    python = [block for block in blocks if block.language == "python"]
    others = [block for block in blocks if block.language != "python"]
    program = [Block("python", "\n".join(block.text for block in python), python[0].line)] if python else []
    return sorted([*program, *others], key=lambda block: block.line)


def run(block: Block, targets: set[str], folder: str) -> str:
    """Run one block in the folder and return what was run.

    Raises:
        BlockError: the block fails.
    """
    if block.language == "text":
        return "output"
    if block.language == "python":
        (Path(folder) / "block.py").write_text(block.text, encoding="utf-8")
        printed = execute([sys.executable, "block.py"], folder).splitlines()
        for said in re.findall(r"# -> (.+)$", block.text, re.MULTILINE):
            if said not in printed:
                output = "\n".join(printed)
                raise BlockError(f"the comment says {said!r}, but the block printed:\n{output}")
        return "python"
    if block.language in ("sh", "console"):
        return ", ".join(run_command(command, targets, folder) for command in commands(block))
    raise BlockError(f"blocks in the language {block.language!r} cannot run; write output as ```text")


def commands(block: Block) -> list[str]:
    """List the commands of a shell block; in `console` blocks only the lines after a `$ ` are commands."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def run_command(command: str, targets: set[str], folder: str) -> str:
    """Run or check one shell command."""
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        if unknown or not arguments:
            raise BlockError(
                f"{command}: the Makefile has no target {' '.join(unknown)}; it has {', '.join(sorted(targets))}"
            )
        return f"make {' '.join(arguments)} (a target)"
    if program == "foveate":
        execute([str(Path(sys.executable).with_name("foveate")), *arguments], folder)
        return command
    if program in SET_UP:
        return f"{program} (skipped)"
    raise BlockError(f"{command}: only foveate, make and set-up commands can run")


def execute(command: list[str], folder: str) -> str:
    """Run a process in the folder and return its output. Raises BlockError when it fails."""
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BlockError(str(error)) from error
    if result.returncode:
        raise BlockError(
            f"{shlex.join(command)} ended with code {result.returncode}\n{result.stdout[-2000:]}{result.stderr[-4000:]}"
        )
    return result.stdout


if __name__ == "__main__":
    sys.exit(main())
