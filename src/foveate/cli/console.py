"""Where output goes: the result to stdout, everything else to stderr; colours and boxes only on a terminal."""

import codecs
import contextlib
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.highlighter import NullHighlighter
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 240  # columns of text that goes to a file or a pipe, which needs no wrapping
_IN_ASCII = {"×": "x", "±": "+/-", "−": "-", "–": "-", "…": "...", "·": "-"}


def stdout() -> Console:
    """Return a console that writes to the current sys.stdout."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return a console that writes to the current sys.stderr."""
    return _console(stderr=True)


def say(text: object = "", style: str = "") -> None:
    """Print one line of the result, without wrapping and without reading the text as markup."""
    stdout().print(Text(str(text), style), soft_wrap=True)


def say_prose(text: str, style: str = "") -> None:
    """Print a sentence, wrapped between words on a terminal."""
    console = stdout()
    console.print(Text(text, style), soft_wrap=not console.is_terminal)


def note(text: object = "", style: str = "") -> None:
    """Print one line on stderr, as it is not part of the result."""
    stderr().print(Text(str(text), style), soft_wrap=True)


def say_json(result: Any) -> None:
    """Print the result as JSON, which is then the only output on stdout."""
    plain = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(result, indent=2, ensure_ascii=plain, allow_nan=False)
    # bytes of a file name that are not UTF-8 become \udc80 to \udcff: JSON writes these, os.fsencode reads them back
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def say_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; the first `left` columns are text, the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    show(table)


def show(renderable: RenderableType) -> None:
    """Print anything that rich can render, without the blanks that it adds at the ends of lines."""
    console = stdout()
    with console.capture() as captured:
        console.print(renderable)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def fail(what: str, fix: str, error: BaseException | None = None) -> None:
    """Print what went wrong and the fix on stderr, after the traceback of the error if one is given."""
    if error is not None:
        sys.stderr.write("".join(traceback.format_exception(error)))
    if what:
        stderr().print(Text.assemble(("Error: ", "bold red"), what), soft_wrap=True)
    if fix:
        stderr().print(Text.assemble(("Fix:   ", "bold green"), fix), soft_wrap=True)


def print_in_any_encoding() -> None:
    """Make stdout and stderr replace characters that their encoding lacks, so that printing never fails."""
    codecs.register_error("foveate", _replaced)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream of another kind, or a closed one
            stream.reconfigure(errors="foveate")  # pyright: ignore[reportAttributeAccessIssue]


def send_logs_to_stderr() -> None:
    """Show the library's log and all warnings on stderr, one line each."""
    root = logging.getLogger()
    root.handlers = [*(handler for handler in root.handlers if not isinstance(handler, _Stderr)), _Stderr()]
    logging.getLogger("foveate").setLevel(logging.INFO)
    warnings.showwarning = _show_warning


class _Stderr(logging.Handler):
    """Writes each line once to the current sys.stderr, which a progress bar may replace.

    A study builds its host often, and each time logs the same lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if line not in self.written:
            self.written.add(line)
            sys.stderr.write(line + "\n")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replace mathematical signs with ASCII, and other characters that cannot be encoded with escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    sys.stderr.write(f"Warning: {message}\n")


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlighter=NullHighlighter())
