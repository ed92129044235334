"""Decode text files that people bring: by their byte order mark (UTF-8 or UTF-16), else as strict UTF-8."""

import codecs
from pathlib import Path

from foveate.errors import DataError, FoveateError

__all__ = ["decoded"]

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decoded(content: bytes, path: Path, error: type[FoveateError] = DataError) -> str:
    """Return the text of a file, without its byte order mark.

    Another encoding, such as GBK or Latin-1, is not guessed, as a wrong guess gives wrong names without an error.

    Raises:
        FoveateError: the content is in another encoding, or not text; it is of the type `error`.
    """
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as wrong:
        line = content[: wrong.start].decode(encoding).count("\n") + 1
        what = "UTF-16, as its first bytes promise" if encoding == "utf-16" else f"UTF-8: 0x{content[wrong.start]:02x}"
        raise _unreadable(path, f"bytes in line {line} that are not {what}", error) from None
    if "\0" in text:
        raise _unreadable(
            path, "zero bytes, as in UTF-16 or UTF-32 without a mark, or in a file that is no text", error
        )
    return text


def _unreadable(path: Path, received: str, error: type[FoveateError]) -> FoveateError:
    name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
    do = "save it as UTF-8 (an editor has this under Save As, Encoding)"
    return error(expected=f"text in UTF-8 in {name}", received=received, do=do)
