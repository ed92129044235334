"""Turn an exception into an exit code, one line that describes it, and one line with the fix."""

import re
import shlex
import sys
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import typer

from foveate.errors import FoveateError, extra_of, missing_extra

_PARSER_ERROR: Any = typer.BadParameter.__base__  # raised for any wrong option or argument; typer does not export it
_OUT_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class Failure(NamedTuple):
    """The exit code of the process and its two lines on stderr."""

    exit_code: int
    what: str
    fix: str


def describe(error: BaseException, options: Collection[str]) -> Failure:
    """Describe any exception in the words of the command line, with `options` by their names in Python."""
    if isinstance(error, FoveateError):
        expected, received, do = (as_options(text, options) for text in (error.expected, error.received, error.do))
        return Failure(error.exit_code, f"expected {expected}; received {received}", do)
    if extra := extra_of(error):
        needed = "study" if extra == "torch" else extra  # every command needs the packages of a study
        return describe(missing_extra(getattr(error, "name", ""), needed), options)
    if isinstance(error, _PARSER_ERROR):
        return Failure(
            2,
            _one_line(getattr(error, "format_message", error.__str__)()),
            f"{_command_of(error)} --help shows how to use it",
        )
    if isinstance(error, KeyboardInterrupt):
        terminated = isinstance(error, Terminated)
        return Failure(
            143 if terminated else 130, "terminated" if terminated else "interrupted", "all finished work is kept"
        )
    if _is_out_of_memory(error):
        return Failure(
            6,
            f"expected enough memory; received {_one_line(error) or 'none left'}",
            "use a smaller --batch or --imgsz, or fewer --jobs",
        )
    if isinstance(error, BrokenPipeError | SystemExit):  # rich raises SystemExit when its output is closed
        return Failure(0, "", "")
    if isinstance(error, OSError):
        return Failure(
            1, f"the system refused: {_one_line(error)}", "check the path, its permissions and the free space"
        )
    return Failure(
        1,
        f"unexpected {type(error).__name__}: {_one_line(error)}",
        "run it again with --debug and report the traceback",
    )


def as_options(text: str, options: Collection[str]) -> str:
    """Return a message of the library in the words of the command line, which has these options.

    >>> as_options("use where='stage' or where='layer1.*' or 'layer2.*'", {"where"})
    "use --where stage or --where 'layer1.*' or --where 'layer2.*'"
    >>> as_options("pass example= an input, a tuple of inputs or a shape (1, C, H, W)", {"where"})
    'choose another --imgsz'
    >>> as_options("attention_lr: a positive number", {"attention_lr"})
    '--attention-lr: a positive number'
    """
    text = re.sub(r"pass example=.*", "choose another --imgsz", text)
    given = rf"\b({_any_of(options)})=('[^']*'(?: or '[^']*')*)"
    text = re.sub(given, lambda match: _as_option(_dashed(match[1]), match[2]), text)
    # only names with an underscore: a name of one word may be a plain word
    named = rf"(?<![\w/.])(?:--)?({_any_of(name for name in options if '_' in name)})\b"
    return re.sub(named, lambda match: f"--{_dashed(match[1])}", text)


def _any_of(names: Iterable[str]) -> str:
    return "|".join(sorted(names)) or "(?!)"  # a pattern that matches nothing


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _as_option(name: str, values: str) -> str:
    return " or ".join(f"--{name} {shlex.quote(value)}" for value in re.findall(r"'([^']*)'", values))


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _command_of(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "foveate"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
