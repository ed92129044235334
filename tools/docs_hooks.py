"""The MkDocs hook that writes a page for every mechanism while the site is built; the pages are not committed.

`python tools/docs_hooks.py nets/mine.py:Mine` prints the page of a mechanism of your own.
"""

import contextlib
import dataclasses
import inspect
import sys
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, assert_never

import docs_structure
from foveate import cost, mechanisms
from foveate.bind.published import layouts
from foveate.errors import UsageError
from foveate.facts import facts, grouped
from foveate.parts import ChannelConv, Constant, Conv, Gate, Norm, Part, Parts, Replace, Scale, flat
from foveate.report.format import count, size
from foveate.spec import Mechanism
from option_meanings import meaning

WIDTHS = (32, 64, 128, 256, 512, 1024)
SIZE = 56
SECTION = "Mechanisms"


def on_config(config: Any) -> Any:
    """Fill the sections that mkdocs.yml leaves empty with the mechanisms' pages, or with the pages of the folder."""
    written = Path(config["docs_dir"])
    navigation = []
    for entry in config["nav"]:
        title, content = next(iter(entry.items()))
        if title == SECTION:
            content = [
                {"All of them": "mechanisms/index.md"},
                *({kind.__name__: f"mechanisms/{kind.name}.md"} for kind in kinds()),
            ]
        elif content == []:
            content = [path.relative_to(written).as_posix() for path in sorted((written / title.lower()).glob("*.md"))]
        if content:
            navigation.append({title: content})
    config["nav"] = navigation
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the Markdown of every page by its path."""
    return {"mechanisms/index.md": index(), **{f"mechanisms/{kind.name}.md": page(kind) for kind in kinds()}}


def kinds() -> list[type[Mechanism]]:
    """Return the mechanisms in the catalogue's order."""
    return list(mechanisms.built_in().values())


def index() -> str:
    """Write the tables of all mechanisms, one for each kind of thing that they weigh."""
    tables = [
        f"## {group[0].upper()}{group[1:]}\n\n{table(COLUMNS, map(row, names), numbers=3)}"
        for group, names in grouped(mechanisms.built_in()).items()
    ]
    return f"""# The mechanisms

Each mechanism is one file of `foveate/mechanisms`, written once and bound to every framework. Tests compare it with
numbers from its authors' own code. They are grouped by what they weigh. Costs are those of one call with the default
options on a map of 256 × {SIZE} × {SIZE}. [`foveate list --for MODEL`](../how-to/command-line.md#choose-a-mechanism)
counts what each would add to your model.

{(chr(10) * 2).join(tables)}
"""


COLUMNS = ("name", "what it is", "parameters", "MACs", "bytes")


def row(name: str) -> Sequence[str]:
    """Write the row of a mechanism in the table of its group."""
    kind = mechanisms.get(name)
    what = inspect.getdoc(inspect.getmodule(kind)) or ""
    found = measure(kind, 256)
    return f"[{escape(name)}]({name}.md)", escape(what), f"{found.parameters:,}", count(found.macs), size(found.bytes)


def page(kind: type[Mechanism]) -> str:
    """Write the page of one mechanism."""
    equation, _, rest = (inspect.getdoc(kind) or "").partition("\n")
    return f"""# {kind.__name__}

```text
{textwrap.fill(equation, 100)}
```

{escape(rest.strip())}

{f"*{escape(kind.paper)}.*" if kind.paper else ""}

{about(kind)}

```python
{use(kind)}
```

## Structure

{docs_structure.svg(kind())}

Each box shows what it returns, channels × height × width, for a map of 256 × 56 × 56 and default options.

## Options

{options(kind)}

## Parts

The learnable parts for 256 channels, under the names of their weights.

{table(("part", "what it is"), parts(kind().parts(256)))}

## Cost

One call on a feature map of {SIZE} × {SIZE}, batch size 1, default options, `start="paper"`. Bytes are float32 memory
traffic without fusion.

{costs(kind)}

## Published weights

{published(kind)}

## Golden data

{golden(kind)}
"""


def use(kind: type[Mechanism]) -> str:
    """Write the code that makes a module of it."""
    if mechanisms.built_in().get(kind.name) is kind:
        return f"""import foveate
from foveate.torch import {kind.__name__}

module = {kind.__name__}(256)                         # a torch.nn.Module
same = foveate.attention("{kind.name}", 256)            # the same by name"""
    module = sys.modules[kind.__module__]
    home = kind.__module__ if module.__spec__ else Path(module.__file__ or "").stem  # without a spec: named by its file
    return f"""import foveate
from {home} import {kind.__name__}

module = foveate.attention({kind.__name__}, 256)        # a torch.nn.Module"""


def about(kind: type[Mechanism]) -> str:
    """Say what it weighs, when people use it, where its authors place it, what copies get wrong, and what it costs."""
    known, found = facts(kind), measure(kind, 256)
    counts = f"{found.parameters:,} parameters, {count(found.macs)} MACs, {size(found.bytes)} of memory traffic"
    gates = dict.fromkeys(part.kind for part in flat(kind().parts(256)).values() if isinstance(part, Gate))
    rows = {
        "what `record` shows": f"gates: {', '.join(gates)}." if gates else "nothing: it has no gates.",
        "when people use it": known.get("use"),
        "where its authors place it": known.get("place"),
        "what copies get wrong": known.get("copies"),
        "what it costs": f"{counts}, on a map of 256 × {SIZE} × {SIZE}.",
    }
    told = [(label, escape(text)) for label, text in rows.items() if text]
    return table(("what it weighs", known.get("weighs", "not said")), told)


def options(kind: type[Mechanism]) -> str:
    """Write the table of options."""
    types = inspect.get_annotations(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    hints = [type_name(types.get(field.name, field.type)) for field in fields]
    rows = [
        (f"`{field.name}`", f"`{hint}`", f"`{field.default!r}`", meaning(kind, field.name))
        for field, hint in zip(fields, hints, strict=True)
    ]
    return table(("option", "type", "default", "meaning"), rows) if rows else "None."


def costs(kind: type[Mechanism]) -> str:
    """Write the table of costs over widths."""
    measured = []
    for width in WIDTHS:
        with contextlib.suppress(UsageError):  # the default options do not fit every width
            measured.append((width, measure(kind, width)))
    rows = [
        (f"{width}", f"{c.parameters:,}", f"{c.macs:,}", f"{c.elementwise:,}", f"{c.bytes:,}") for width, c in measured
    ]
    return table(("channels", "parameters", "MACs", "element-wise operations", "bytes"), rows, numbers=5)


def measure(kind: type[Mechanism], width: int) -> cost.Cost:
    """Return the cost of the default mechanism at one width."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small widths may leave one hidden unit, which the counts show
        return cost.measure(kind(), (1, width, SIZE, SIZE))


def published(kind: type[Mechanism]) -> str:
    """Write the layouts that `load_published` recognises."""
    found = layouts(kind)
    if not found:
        return "`foveate.load_published` knows Foveate's own names only."
    rows = [
        (
            f"`{layout.name}`",
            escape(layout.source),
            "<br>".join(f"`{ours}` = `{theirs}`" for ours, theirs in layout.names.items()),
        )
        for layout in found
    ]
    names = table(("layout", "from", "our part = theirs"), rows)
    return f"`foveate.load_published` recognises these layouts by names and shapes.\n\n{names}"


def golden(kind: type[Mechanism]) -> str:
    """Name the configurations that are tested against the authors' numbers."""
    held = [
        f"`{file}/{name}`"
        for file, configs in facts(kind).get("golden", {}).items()
        for name, config in configs.items()
        if not config.get("no_hidden_unit")
    ]
    if not held:
        return "None."
    return (
        "Outputs and every gradient agree with numbers made with the authors' code (or the listing), to 1e-9 in "
        f"float64 and 2e-5 in float32, in {len(held)} configuration{'s' if len(held) > 1 else ''}: {', '.join(held)}."
    )


def parts(tree: Parts) -> list[tuple[str, str]]:
    """List the parts, each with a description."""
    return [(f"`{path}`", described(part)) for path, part in flat(tree).items()]


def described(part: Part) -> str:
    """Describe a part."""
    match part:
        case Conv():
            more = [f"{n} {what}" for n, what in ((part.groups, "groups"), (part.dilation, "dilation")) if n > 1]
            kind = " x ".join(map(str, part.size))
            bias = ["bias"] if part.bias else []
            return ", ".join([f"{kind} convolution", f"{part.inputs} to {part.outputs} channels", *more, *bias])
        case ChannelConv(kernel, bias):
            return f"convolution along the channels, {kernel} wide{', bias' if bias else ''}"
        case Norm():
            return f"{part.kind} norm of {part.channels} channels"
        case Scale():
            return f"learnt factor{f' of {part.size} channels' if part.size > 1 else ''}"
        case Constant():
            return "constant factor"
        case Gate(kind):
            return f"{kind} gate"
        case Replace():
            return "the output"
        case _:
            assert_never(part)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """Write a Markdown table, whose last columns are numbers."""
    lines = [header, ["---"] * (len(header) - numbers) + ["---:"] * numbers, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def type_name(annotation: Any) -> str:
    """Write a type as in the source code."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def escape(text: str) -> str:
    """Escape stars and underscores outside code."""
    pieces = text.split("`")
    return "`".join(piece if i % 2 else piece.replace("*", r"\*").replace("_", r"\_") for i, piece in enumerate(pieces))


if __name__ == "__main__":
    print(page(mechanisms.get(sys.argv[1])))
