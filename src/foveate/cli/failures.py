"""What went wrong, as an exit code, one line of what and one line of the fix."""

import sys
from typing import Any, NamedTuple

import typer

from foveate.errors import FoveateError, extra_of, missing_extra

_PARSER_ERROR: Any = typer.BadParameter.__base__  # for any wrong option or argument; typer does not export it
_OUT_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class Failure(NamedTuple):
    """What the process leaves behind: its exit code and two lines on stderr."""

    exit_code: int
    what: str
    fix: str


def describe(error: BaseException) -> Failure:
    """Put any exception into the terms of the command line."""
    if isinstance(error, FoveateError):
        return Failure(error.exit_code, f"expected {error.expected}; received {error.received}", error.do)
    if extra := extra_of(error):
        told = missing_extra(getattr(error, "name", ""), "study" if extra == "torch" else extra)  # every verb needs what a study needs
        return describe(told)
    if isinstance(error, _PARSER_ERROR):
        return Failure(2, _one_line(getattr(error, "format_message", error.__str__)()), f"{_command_of(error)} --help lists what there is")
    if isinstance(error, KeyboardInterrupt):
        terminated = isinstance(error, Terminated)
        return Failure(143 if terminated else 130, "terminated" if terminated else "interrupted", "whatever was finished is kept")
    if _is_out_of_memory(error):
        return Failure(
            6, f"expected room in memory; received {_one_line(error) or 'none left'}", "use a smaller --batch or --imgsz, or fewer --jobs"
        )
    if isinstance(error, BrokenPipeError | SystemExit):  # the latter is rich's, when what it prints to is closed
        return Failure(0, "", "")
    if isinstance(error, OSError):
        return Failure(1, f"the system refused: {_one_line(error)}", "check the path, its permissions and the free space")
    return Failure(1, f"unexpected {type(error).__name__}: {_one_line(error)}", "run it again with --debug and report the traceback")


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
