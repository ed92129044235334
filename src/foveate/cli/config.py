"""`--config study.yaml`: the file's values become the defaults of the options of the same names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from foveate import plain_yaml
from foveate.errors import UsageError, nearest
from foveate.text_files import decoded

_LARGEST = 1_000_000  # bytes; a configuration is a page of text
_Scalar = str | int | float | bool


def use_config(context: typer.Context, path: Path | None) -> Path | None:
    """Read the file named by `--config`, before any other option is read.

    Raises UsageError.
    """
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_as_defaults(read_config(path), context, path)}
    return path


def read_config(path: Path) -> dict[str, _Scalar | None]:
    """Read names and plain values; a list becomes comma-separated text.

    Raises UsageError for anything else.
    """
    try:
        with path.open("rb") as file:
            content = plain_yaml.load(_text(file.read(_LARGEST + 1), path))
    except UsageError:
        raise
    except OSError as error:
        raise _wrong(path, error.strerror or str(error), "check that the file exists and may be read") from None
    except Exception as error:  # damaged YAML surfaces as YAMLError, ValueError, AttributeError, ...
        raise _wrong(
            path, " ".join(str(error).split())[:200] or type(error).__name__, "write one 'name: value' on each line"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise _wrong(path, f"a {type(content).__name__}", "write one 'name: value' on each line")
    return {_name(key, path): _plain(key, value, path) for key, value in content.items()}


def _as_defaults(config: Mapping[str, _Scalar | None], context: typer.Context, path: Path) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for parameter in context.command.params:
        known.setdefault(str(parameter.name), parameter)
        known.update(
            {option.lstrip("-").replace("-", "_"): parameter for option in parameter.opts if option.startswith("--")}
        )
    for control in ("config", "help", "debug", "json"):
        known.pop(control, None)
    for name in config:
        if name not in known:
            raise UsageError(
                expected=f"the names of options of {context.command_path!r} in {path}",
                received=repr(name),
                do=nearest(name, known),
            )
    values = {str(known[name].name): value for name, value in config.items() if value is not None}
    flags = {str(parameter.name) for parameter in known.values() if getattr(parameter, "is_flag", False)}
    return {name: value if name in flags else str(value) for name, value in values.items()}


def _text(content: bytes, path: Path) -> str:
    if len(content) > _LARGEST:
        raise _wrong(path, f"more than {_LARGEST:,} bytes", "keep the options only")
    return decoded(content, path, UsageError)


def _name(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise _wrong(path, f"a {type(key).__name__} as a name", "write one 'name: value' on each line")
    return key.replace("-", "_")


def _plain(key: str, value: object, path: Path) -> _Scalar | None:
    if value is None or isinstance(value, _Scalar):
        return value
    if isinstance(value, list) and all(isinstance(item, _Scalar) for item in value):
        return ",".join(map(str, value))
    raise _wrong(path, f"{key!r} as a {type(value).__name__}", "give one value or a flat list of values")


def _wrong(path: Path, received: str, do: str) -> UsageError:
    return UsageError(expected=f"a YAML file of options in {path}", received=received, do=do)
