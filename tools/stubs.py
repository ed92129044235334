"""Write the stubs of foveate.torch and foveate.keras for editors from the catalogue; `--check` only checks them."""

import argparse
import ast
import inspect
import subprocess
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from foveate.mechanisms import built_in
from foveate.spec import Mechanism

ROOT = Path(__file__).resolve().parent.parent / "src" / "foveate"


@dataclass(frozen=True)
class Face:
    """A framework's public package: the stub's first lines, and the arguments and results of its classes."""

    package: str
    head: str  # the first lines
    types: Mapping[str, str]  # the modules of the types in the arguments
    first: str  # the first arguments of every class
    common: str  # the last arguments of every class
    maps: str  # the type of feature maps
    renamed: Mapping[str, str]  # names of the inputs of a call, where they differ from the mechanism's
    call: str  # the arguments of a call besides the maps
    any_name: str  # the last overload of `attention`

    @property
    def path(self) -> Path:
        """The path of the stub."""
        return ROOT / self.package / "__init__.pyi"


TYPES = {"Start": "foveate.parts", "Mechanism": "foveate.spec"}
TORCH = Face(
    "torch",
    '''"""Every mechanism of the catalogue as a `torch.nn.Module` class.

Made by tools/stubs.py: run it after a change of options.
"""

from typing import Any, Literal, overload

import torch
from torch import Tensor

''',
    TYPES,
    "channels: int, ",
    'start: Start = "paper", device: Any = None, dtype: torch.dtype | None = None',
    "Tensor",
    {},
    "",
    "Return the named mechanism for maps (N, channels, H, W) as a module. Raises UsageError for an unknown name.",
)
KERAS = Face(
    "keras",
    '''"""Every mechanism of the catalogue as a `keras.Layer` class.

Made by tools/stubs.py: run it after a change of options.
"""

from typing import Any, Literal, overload

''',
    {**TYPES, "DataFormat": "foveate.bind.keras.parts"},
    "",
    'start: Start = "paper", data_format: DataFormat | None = None, name: str | None = None, dtype: Any = None, '
    "trainable: bool = True, activity_regularizer: Any = None, autocast: bool = True",
    "Any",
    {"x": "inputs"},
    ", *, training: bool | None = None",
    "Return the named mechanism as a `keras.Layer`. Raises UsageError for an unknown name.",
)
FACES = (TORCH, KERAS)


def main() -> int:
    """Write the stubs, or with --check return 1 when one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [face for face in FACES if not face.path.is_file() or face.path.read_text(encoding="utf-8") != stub(face)]
    for face in stale:
        if check:
            print(f"{face.path.relative_to(ROOT.parent)} is stale: run python tools/stubs.py", file=sys.stderr)
        else:
            face.path.write_text(stub(face), encoding="utf-8")
    return int(check and bool(stale))


def stub(face: Face) -> str:
    """Return the text of a stub: a class and an overload of `attention` for each mechanism."""
    kinds = list(built_in().values())
    imported = _imported(face)
    names = ["attention", *imported, *(kind.__name__ for kind in kinds)]
    public = sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    lines = [f"from {home} import {name} as {name}\n" for name, home in imported.items()]
    lines += [f"from {home} import {name}\n" for name, home in face.types.items()]
    overloads = [*(_overload(face, kind) for kind in kinds), _any_name(face)]
    parts = [
        face.head,
        *sorted(lines),
        f"\n__all__ = {public!r}\n",
        *(_class(face, kind) for kind in kinds),
        *overloads,
    ]
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(face.path), "-"]
    return subprocess.run(command, input="".join(parts), capture_output=True, text=True, check=True).stdout


def _imported(face: Face) -> dict[str, str]:
    """Return the public names that the package imports as they are, and their modules; read, not run."""
    nodes = ast.walk(ast.parse((ROOT / face.package / "__init__.py").read_text(encoding="utf-8")))
    found = [(name.name, str(node.module)) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names]
    return {name: home for name, home in found if name not in ("attention", "classes", "naming_extras")}


def _class(face: Face, kind: type[Mechanism]) -> str:
    inputs = ", ".join(["self", *_inputs(face, kind)]) + face.call
    doc = (kind.__doc__ or "").rstrip()
    return f'''
class {kind.__name__}(Attention):
    """{doc}{"" if chr(10) not in doc else chr(10) + "    "}"""

    def __init__(self, {face.first}*, {", ".join([*_options(kind), face.common])}) -> None: ...
    def __call__({inputs}) -> {face.maps}: ...
'''


def _overload(face: Face, kind: type[Mechanism]) -> str:
    options = ", ".join([*_options(kind), face.common])
    return (
        f"\n@overload\ndef attention({_called(face, f'Literal[{kind.name!r}]')}*, {options}) -> {kind.__name__}: ...\n"
    )


def _any_name(face: Face) -> str:
    called = _called(face, "str | Mechanism | type[Mechanism]")
    head = f"def attention({called}*, {face.common}, **options: Any) -> Attention:"
    return f'\n@overload\n{head}\n    """{face.any_name}"""\n'


def _called(face: Face, kind: str) -> str:
    """Return the first arguments of `attention`; where `mechanism` could be an option, it is positional-only."""
    return f"mechanism: {kind}, {face.first}" if face.first else f"mechanism: {kind}, /, "


def _options(kind: type[Mechanism]) -> Iterator[str]:
    for option in fields(kind):
        yield f"{option.name}: {_annotation(option.type)}{_default(option)}"


def _annotation(hint: Any) -> str:
    arguments = get_args(hint)
    match get_origin(hint):
        case typing.Literal:
            return f"Literal[{', '.join(map(repr, arguments))}]"
        case typing.Union | types.UnionType:
            return " | ".join(map(_annotation, arguments))
        case None:
            return {types.NoneType: "None", ...: "..."}.get(hint) or hint.__name__
        case generic:
            return f"{generic.__name__}[{', '.join(map(_annotation, arguments))}]"


def _default(option: "Field[object]") -> str:
    return "" if option.default is MISSING else f" = {option.default!r}"


def _inputs(face: Face, kind: type[Mechanism]) -> Iterator[str]:
    _, _, _, *inputs = inspect.signature(kind.forward).parameters.values()
    for parameter in inputs:
        yield f"{face.renamed.get(parameter.name, parameter.name)}: {face.maps}" + (
            "" if parameter.default is parameter.empty else f"{'' if face.maps == 'Any' else ' | None'} = None"
        )


if __name__ == "__main__":
    sys.exit(main())
