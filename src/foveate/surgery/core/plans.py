"""The plan of an attachment: its sites, the cost of attention there, and the table that shows both."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from foveate.cost import Cost
from foveate.errors import counted, shortened
from foveate.parts import Start

COLUMNS = ("site", "shape", "parameters", "MACs", "element-wise", "bytes moved")


@dataclass(frozen=True)
class Site:
    """One site of attention: the module's name, its output (N, C, H, W), and the cost of its calls in one run.

    `replaces` is the class of the module that attention takes the place of, if it does, and `removed` that one's cost.
    """

    name: str
    shape: tuple[int, ...]
    cost: Cost
    needs_batch: bool = False
    """Whether a batch norm in the attention has one value per channel and sample, so that a batch of one fails."""
    replaces: str | None = None
    removed: Cost = field(default_factory=Cost)
    context: str | None = None
    """The site whose map is the context of the attention, if it takes one."""

    @property
    def label(self) -> str:
        """The name for a table, with the context."""
        return f"{self.name} <- {self.context}" if self.context else self.name


@dataclass(frozen=True)
class Plan:
    """Where attention goes and what it costs; `str(plan)` is a table."""

    mechanism: str
    options: dict[str, Any]
    start: Start
    where: str | None
    host_parameters: int
    sites: list[Site]

    @property
    def cost(self) -> Cost:
        """The sum over the sites."""
        return sum((site.cost for site in self.sites), Cost())

    @property
    def removed(self) -> Cost:
        """The cost of the modules that attention takes the place of."""
        return sum((site.removed for site in self.sites), Cost())

    @property
    def replaced(self) -> list[str]:
        """The classes of the modules that attention takes the place of."""
        return list(dict.fromkeys(site.replaces for site in self.sites if site.replaces))

    @property
    def place(self) -> str:
        """Where the attention goes, in words."""
        at = [f"in the place of {' and '.join(self.replaced)}"] if self.replaced else []
        return " ".join(at + ([f"at {self.where}"] if self.where else []))

    @property
    def parameters(self) -> int:
        """Parameters added."""
        return self.cost.parameters

    @property
    def change(self) -> int:
        """How many parameters more the model has afterwards: those added without those removed."""
        return self.parameters - self.removed.parameters

    @property
    def macs(self) -> int:
        """Multiply-adds added to one run on the example."""
        return self.cost.macs

    @property
    def elementwise(self) -> int:
        """Element-wise operations added to one run on the example."""
        return self.cost.elementwise

    @property
    def bytes(self) -> int:
        """Memory traffic added to one run on the example, in float32 bytes."""
        return self.cost.bytes

    @property
    def note(self) -> str | None:
        """What to know before training: the sites where a batch of one sample fails, None where there are none."""
        names = [f"{site.name!r} ({' x '.join(map(str, site.shape[2:]))})" for site in self.sites if site.needs_batch]
        if not names:
            return None
        return (
            f"at {shortened(names)} a batch norm inside the attention has one value per channel and sample: training "
            "with a batch of one fails there. Train on larger batches or inputs, or leave these sites out"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as values that JSON can hold."""
        sites = [
            {
                "name": site.name,
                "shape": list(site.shape),
                **vars(site.cost),
                "replaces": site.replaces,
                "context": site.context,
            }
            for site in self.sites
        ]
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        head = {"mechanism": self.mechanism, "options": options, "start": self.start, "where": self.where}
        host = {"host_parameters": self.host_parameters, "removed": vars(self.removed)}
        return {**head, **host, **vars(self.cost), "sites": sites}

    def __str__(self) -> str:
        rows, totals = self._rows()
        rows = [COLUMNS, *rows, *totals]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        rule = "-" * max(map(len, lines))
        sites, ends = lines[1 : -len(totals)], lines[-len(totals) :]
        return "\n".join([self._title, lines[0], rule, *sites, rule, *ends, *self._foot])

    def _repr_html_(self) -> str:
        rows, totals = self._rows()
        head, body, foot = (
            "".join("<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in row) + "</tr>" for row in part)
            for part, cell in (([COLUMNS], "th"), (rows, "td"), (totals, "th"))
        )
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
        return f"<p>{escape(self._title)}</p>{table}" + "".join(f"<p>{escape(line)}</p>" for line in self._foot)

    @property
    def _title(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.mechanism} {self.place} (start={self.start!r}{options})"

    @property
    def _foot(self) -> list[str]:
        total, share = self.host_parameters + self.change, self.change / max(self.host_parameters, 1)
        notes = [f"note: {self.note}"] if self.note else []
        return [f"host parameters {self.host_parameters:,} -> {total:,} with attention ({share:+.2%})", *notes]

    def _rows(self) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Return a row for each site, and the totals."""
        rows = [(site.label, " x ".join(map(str, site.shape)), *_numbers(site.cost)) for site in self.sites]
        totals = [(counted(len(self.sites), "site"), "", *_numbers(self.cost))]
        if self.replaced:
            totals.append((f"{' and '.join(self.replaced)} removed", "", *_numbers(self.removed)))
        return rows, totals


def describe(where: object) -> str:
    """Return `where` in words, for tables and records."""
    if isinstance(where, str):
        return where
    if isinstance(where, Sequence):
        return ", ".join(map(describe, where))
    return getattr(where, "__name__", type(where).__name__)


def _numbers(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in (cost.parameters, cost.macs, cost.elementwise, cost.bytes))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.ljust(width) if place < 2 else text.rjust(width)
        for place, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
