"""What was recorded: `maps["layer4.1.bn2"].spatial`, and a limit on its memory; for arrays of any framework."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from foveate.errors import UsageError, naming_extras, nearest
from foveate.gates.kinds import RecordedKind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 2 << 30  # bytes
Array = TypeVar("Array")


@dataclass(frozen=True, eq=False, repr=False)
class RecordedGate(Generic[Array]):
    """One gate of one forward pass, which multiplied the features; detached, on the CPU, channels first.

    `gate` is (N, C, 1, 1), (N, 1, H, W), (N, C, H, 1), (N, C, 1, W) or (N, C, H, W) for `kind` channel, spatial, row,
    column, full, and has as many axes as the features; a mechanism that works in G groups of channels has spatial gates
    (N, G, H, W). With the identity start 1 leaves the features unchanged, and a sigmoid lies between 0 and 2.
    `pairwise` is attention between positions, (N, 1, H, W), and `channel_pairs` between channels, (N, C, 1, 1): how
    much each is read, 1 on average where the weights are shares, as after a softmax. `name` is the gate's module,
    `site` the host module it acts on (else the attention module), `size` the shape of the features without N and C: the
    height and width of a map. `limits` are the lowest and highest value that the gate can have, if there are any, and
    `call` counts the calls of the model, from 0.
    """

    name: str
    site: str
    kind: RecordedKind
    gate: Array
    size: tuple[int, ...]
    limits: tuple[float, float] | None = None
    call: int = 0

    def __repr__(self) -> str:
        gate: Any = self.gate
        return f"{self.site} {self.kind} {tuple(gate.shape)}"


@dataclass(frozen=True, eq=False)
class SiteGates(Generic[Array]):
    """The gates of one site, in the order they ran; of a kind that ran more than once, the properties give the last."""

    site: str
    gates: tuple[RecordedGate[Array], ...]

    @property
    def channel(self) -> Array | None:
        """Return the last channel gate (N, C, 1, 1), or None."""
        return self._last("channel")

    @property
    def spatial(self) -> Array | None:
        """Return the last spatial gate (N, 1, H, W), or None."""
        return self._last("spatial")

    @property
    def row(self) -> Array | None:
        """Return the last row gate (N, C, H, 1), or None."""
        return self._last("row")

    @property
    def column(self) -> Array | None:
        """Return the last column gate (N, C, 1, W), or None."""
        return self._last("column")

    @property
    def full(self) -> Array | None:
        """Return the last gate of channels and positions (N, C, H, W), or None."""
        return self._last("full")

    @property
    def pairwise(self) -> Array | None:
        """Return how much each position was read in the last call (N, 1, H, W), or None."""
        return self._last("pairwise")

    @property
    def channel_pairs(self) -> Array | None:
        """Return how much each channel was read in the last call (N, C, 1, 1), or None."""
        return self._last("channel_pairs")

    def map(self) -> Array | None:
        """Return a map (N, H, W): spatial, or the channel mean of full or of row x column, or pairwise."""
        spatial, full, row, column, pairwise = map(self._last, ("spatial", "full", "row", "column", "pairwise"))
        if spatial is not None:
            return spatial.mean(1)
        if full is not None:
            return full.mean(1)
        if row is not None and column is not None:
            return (row * column).mean(1)
        return None if pairwise is None else pairwise.mean(1)

    def _last(self, kind: RecordedKind) -> Any:
        return next((recorded.gate for recorded in reversed(self.gates) if recorded.kind == kind), None)


@dataclass(eq=False, repr=False)
class Recording(Generic[Array]):
    """The gates recorded so far: all in `gates`, in the order they ran, and those of a site in `recording[site]`.

    `max_bytes` limits the memory of the gates; None does not.
    """

    gates: list[RecordedGate[Array]] = field(default_factory=list)
    max_bytes: int | None = LIMIT
    held: int = field(default=0, init=False)

    def __repr__(self) -> str:
        return f"Recording of {len(self.gates)} gates" + "".join(f"\n  {recorded}" for recorded in self.gates)

    def __getitem__(self, site: str) -> SiteGates[Array]:
        found = tuple(recorded for recorded in self.gates if recorded.site == site)
        if found:
            return SiteGates(site, found)
        raise UsageError(
            expected="a site whose gates ran inside `with record(model)`",
            received=repr(site),
            do=nearest(site, self)
            if self.gates
            else "call the model inside the block; only models with attention have gates",
        )

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(recorded.site for recorded in self.gates))

    def __contains__(self, site: object) -> bool:
        return any(recorded.site == site for recorded in self.gates)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def spatial(self) -> dict[str, Array]:
        """Return the attention map (N, H, W) of each site that has one, as `SiteGates.map` does."""
        maps = {site: self[site].map() for site in self}
        return {site: found for site, found in maps.items() if found is not None}

    def calls(self) -> "list[Recording[Array]]":
        """Return a recording of each call of the model."""
        numbers = dict.fromkeys(recorded.call for recorded in self.gates)
        return [Recording([one for one in self.gates if one.call == number], self.max_bytes) for number in numbers]

    def plot(self, images: Any = None, most: int = 4) -> "Figure":
        """Return a matplotlib figure: a row for each site and kind of gate, a column for each of `most` samples.

        `images` (N, H, W, 3), uint8, lie below the maps. Raises UsageError for a recording without gates.
        """
        with naming_extras():
            from foveate.gates.figures import recording_figure

        return recording_figure(self.gates, images, most)

    def _repr_html_(self) -> str | None:
        if not self.gates or find_spec("matplotlib") is None:
            return None
        from foveate.gates.figures import as_img

        return as_img(self.plot(), repr(self))

    def reserve(self, count: int, gate: str) -> None:
        """Count the bytes of a gate that is to be kept. Raises UsageError beyond the limit."""
        if self.max_bytes is not None and self.held + count > self.max_bytes:
            raise UsageError(
                expected=f"gates of at most {self.max_bytes / 2**20:,.0f} MiB in a recording",
                received=f"{self.held / 2**20:,.1f} MiB, and {count / 2**20:,.1f} MiB more of {gate!r}",
                do="record fewer calls or kinds of gates in one block, or pass a greater max_bytes",
            )
        self.held += count


def limits_of(gate: Any) -> tuple[float, float] | None:
    """Return the lowest and the highest value of a gate, of torch or Keras; None if it has none."""
    low, high = {"sigmoid": (0, 1), "hard_sigmoid": (0, 1), "tanh": (-1, 1)}.get(gate.activation, (0, 0))
    ends = sorted((gate.scale * (gate.offset + low), gate.scale * (gate.offset + high)))
    return (ends[0], ends[1]) if ends[0] < ends[1] else None
