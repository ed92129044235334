"""What went wrong, as an exit code, one line of what and one line of the fix."""

import re
import shlex
import sys
from typing import Any, NamedTuple

import typer

from foveate.errors import FoveateError, extra_of, missing_extra

_PARSER_ERROR: Any = typer.BadParameter.__base__  # for any wrong option or argument; typer does not export it
_OUT_OF_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")


# An argument of a Python function by its name, which the command line has as an option: where='a' or 'b'.
_KEYWORD = re.compile(r"\b(where|start|mechanism|on_defect|imgsz|weights|split|device)=('[^']*'(?: or '[^']*')*)")


_NAME = re.compile(
    r"(?<![\w/.])(?:--)?(attention_lr|weight_decay|freeze_epochs|multi_scale|data_seed|train_count|val_count|test_count|max_det|top_k)\b"
)


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
        what = f"expected {as_options(error.expected)}; received {as_options(error.received)}"
        return Failure(error.exit_code, what, as_options(error.do))
    if extra := extra_of(error):
        told = missing_extra(
            getattr(error, "name", ""), "study" if extra == "torch" else extra
        )  # every verb needs what a study needs
        return describe(told)
    if isinstance(error, _PARSER_ERROR):
        return Failure(
            2,
            _one_line(getattr(error, "format_message", error.__str__)()),
            f"{_command_of(error)} --help lists what there is",
        )
    if isinstance(error, KeyboardInterrupt):
        terminated = isinstance(error, Terminated)
        return Failure(
            143 if terminated else 130, "terminated" if terminated else "interrupted", "whatever was finished is kept"
        )
    if _is_out_of_memory(error):
        return Failure(
            6,
            f"expected room in memory; received {_one_line(error) or 'none left'}",
            "use a smaller --batch or --imgsz, or fewer --jobs",
        )
    if isinstance(error, BrokenPipeError | SystemExit):  # the latter is rich's, when what it prints to is closed
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


def as_options(text: str) -> str:
    """Return a message of the library in the words of the command line.

    >>> as_options("use where='stage' or where='layer1.*' or 'layer2.*'")
    "use --where stage or --where 'layer1.*' or --where 'layer2.*'"
    >>> as_options("pass example= an input, a tuple of inputs or a shape (1, C, H, W)")
    'choose another --imgsz'
    >>> as_options("attention_lr: a positive number")
    '--attention-lr: a positive number'
    """
    text = re.sub(r"pass example=.*", "choose another --imgsz", text)
    text = _NAME.sub(lambda match: f"--{match[1].replace('_', '-')}", text)
    return _KEYWORD.sub(lambda match: _as_option(match[1].replace("_", "-"), match[2]), text)


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
