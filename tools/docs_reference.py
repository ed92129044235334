"""The MkDocs hook that writes the reference while the site is built: the public names, the command line, the errors."""

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

from typer.models import ArgumentInfo, ParameterInfo

import docs_hooks
import foveate
from docs_hooks import escape, table
from foveate import cli, errors

SOURCE = Path(foveate.__file__).parent
FACES = {
    "foveate": "The verbs for PyTorch models. `import foveate` loads no framework; each name loads it on first use.",
    "foveate.torch": "A `torch.nn.Module` for each mechanism. The options of each are on its page.",
    "foveate.keras": "A `keras.Layer` for each mechanism, each on its page, and the verbs for Keras models.",
    "foveate.lightning": "Attention in a training with Lightning.",
    "foveate.transformers": "Attention in a training with the Trainer of Hugging Face.",
    "foveate.hub": "Share attention and whole models as a folder of plain files, or on the Hugging Face Hub.",
    "foveate.models": "Networks by name, their weights, and detectors.",
}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the Markdown of every page by its path."""
    faces = {f"reference/{name}.md": face(name) for name in FACES}
    return {**faces, "reference/command-line.md": command_line(), "reference/errors.md": exceptions()}


def face(package: str) -> str:
    """Write the page of a public package: a description of each of its public names."""
    names = public(package)
    classes = {kind.__name__: kind for kind in docs_hooks.kinds()}
    rows = [
        (
            f"[{name}](../mechanisms/{classes[name].name}.md)",
            escape((inspect.getdoc(classes[name]) or "").partition("\n")[0]),
        )
        for name in names
        if name in classes
    ]
    shown = [table(("class", "what it computes"), rows)] if rows else []
    return "\n\n".join(
        [f"# `{package}`", FACES[package], *shown, *(f"::: {package}.{name}" for name in names if name not in classes)]
    )


def public(package: str) -> list[str]:
    """Return the names in `__all__` of a package, or of its stub where it has one, without importing it."""
    folder = SOURCE.joinpath(*package.split(".")[1:])
    stub = folder / "__init__.pyi"
    places = (stub, folder / "__init__.py", folder.with_suffix(".py"))
    source = next(place for place in places if place.is_file())
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name("__all__")], value=value):
                return list(ast.literal_eval(value))
    raise LookupError(f"{source} has no list __all__")


def command_line() -> str:
    """Write the page of the command line: every verb with its arguments and options."""
    verbs = "\n".join(
        verb(command.name or "", command.callback) for command in cli.app.registered_commands if command.callback
    )
    return f"# The command line\n\n{cli.app.info.help}\n\n{verbs}"


def verb(name: str, function: Callable[..., Any]) -> str:
    """Write the section of one verb: the first paragraph of its docstring, and its arguments and options by group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter, hint in get_type_hints(function, include_extras=True).items():
        for given in getattr(hint, "__metadata__", ()):
            if isinstance(given, ParameterInfo) and not given.hidden:
                groups.setdefault(given.rich_help_panel or "", []).append(
                    (f"`{called(parameter, given)}`", escape(given.help or ""))
                )
    said = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    header = ("argument or option", "meaning")
    tables = "\n\n".join(
        f"**{group or 'Arguments and options'}**\n\n{table(header, rows)}" for group, rows in groups.items()
    )
    return f"## `foveate {name}`\n\n{escape(said)}\n\n{tables}\n"


def called(parameter: str, given: ParameterInfo) -> str:
    """Write an argument or option as on the command line."""
    if isinstance(given, ArgumentInfo):
        return given.metavar or parameter.upper()
    names = [
        name for name in (given.default, *(given.param_decls or ())) if isinstance(name, str) and name.startswith("--")
    ]
    return ", ".join(names) or f"--{parameter.replace('_', '-')}"


def exceptions() -> str:
    """Write the page of errors: each kind, when it is raised, and the exit code of the command line."""
    rows = [(f"`{kind.__name__}`", f"{kind.exit_code}", escape(inspect.getdoc(kind) or "")) for kind in kinds()]
    return f"""# Errors

Every error that Foveate raises for a wrong call, option, model or file is a `foveate.errors.FoveateError`. Its
attributes `expected`, `received` and `do` say what was expected, what was received, and what to do.

{table(("class", "exit code", "raised for"), rows)}
"""


def kinds() -> Iterator[type[errors.FoveateError]]:
    """Yield the error classes in the order of the source file."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.FoveateError):
            yield kind
