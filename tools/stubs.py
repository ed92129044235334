"""Write src/foveate/torch/__init__.pyi, what editors and type checkers see, from the catalogue; `--check` only says whether it is fresh."""

import argparse
import inspect
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_origin

from foveate.mechanisms import catalogue
from foveate.spec import Mechanism

STUB = Path(__file__).resolve().parent.parent / "src" / "foveate" / "torch" / "__init__.pyi"
COMMON = 'start: Start = "paper", device: Any = None, dtype: torch.dtype | None = None'
HEAD = '''"""Every mechanism of the catalogue as a `torch.nn.Module` class. Made by tools/stubs.py: run it after a change of options."""

from typing import Any, Literal, overload

import torch
from torch import Tensor

from foveate.bind.torch import Attention as Attention
from foveate.bind.torch import Gate as Gate
from foveate.bind.torch import Start
from foveate.spec import Mechanism

'''
ANY_NAME = f"""
@overload
def attention(name: str | Mechanism, channels: int, *, {COMMON}, **options: Any) -> Attention:
    \"\"\"Return the named mechanism for maps (N, channels, H, W) as an `nn.Module`. Raises UsageError for what does not exist.\"\"\"
"""


def main() -> int:
    """Write the stub, or with --check return 1 when it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    fresh = stub()
    if check:
        stale = not STUB.is_file() or STUB.read_text(encoding="utf-8") != fresh
        if stale:
            print(f"{STUB.name} is stale: run python tools/stubs.py", file=sys.stderr)
        return int(stale)
    STUB.write_text(fresh, encoding="utf-8")
    return 0


def stub() -> str:
    """Return the text of the stub: a class and an overload of `attention` for each mechanism."""
    kinds = list(catalogue().values())
    names = ["Attention", "Gate", "attention", *(kind.__name__ for kind in kinds)]
    public = sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    parts = [HEAD, f"__all__ = {public!r}\n", *map(_class, kinds), *map(_overload, kinds), ANY_NAME]
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(command, input="".join(parts), capture_output=True, text=True, check=True).stdout


def _class(kind: type[Mechanism]) -> str:
    inputs = ", ".join(["self", *_inputs(kind)])
    doc = (kind.__doc__ or "").rstrip()
    return f'''
class {kind.__name__}(Attention):
    """{doc}{"" if chr(10) not in doc else chr(10) + "    "}"""

    def __init__(self, channels: int, *, {", ".join([*_options(kind), COMMON])}) -> None: ...
    def __call__({inputs}) -> Tensor: ...
'''


def _overload(kind: type[Mechanism]) -> str:
    options = ", ".join([*_options(kind), COMMON])
    return f"\n@overload\ndef attention(name: Literal[{kind.name!r}], channels: int, *, {options}) -> {kind.__name__}: ...\n"


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


def _inputs(kind: type[Mechanism]) -> Iterator[str]:
    _, _, _, *inputs = inspect.signature(kind.forward).parameters.values()
    for parameter in inputs:
        yield f"{parameter.name}: Tensor" if parameter.default is parameter.empty else f"{parameter.name}: Tensor | None = None"


if __name__ == "__main__":
    sys.exit(main())
