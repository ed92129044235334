"""YOLOv4-tiny as a table of convolutions and one forward, for any framework.

The network is that of arXiv 2011.08036 (section 3.3), with the numbers of yolov4-tiny.cfg of AlexeyAB/darknet. The
table has that file's order of layers, since weight files have no names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from foveate.detection.heads import STRIDE
from foveate.errors import UsageError, nearest

SLOPE = 0.1  # of the leaky ReLU below zero
# of the norms: AlexeyAB/darknet's since 2020 (a34682e), used with its COCO weights; older forks have 1e-6
EPSILON = 1e-5
MOMENTUM = 0.1  # of the norms, in torch's sense
BACKBONE = ("stem1", "stem2", "csp1", "csp2", "csp3", "deep")
HEADS = ("coarse_head", "fine_head")
SITES = ("feat1", "feat2", "up")
PHI = (None, "se", "cbam", "eca", "coordinate")
BACKGROUND = -4.595  # the logit of 0.01


@dataclass(frozen=True)
class ConvSpec:
    """A convolution without bias, with batch norm and leaky ReLU; or without `norm` a head: a convolution with bias."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    norm: bool = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every array, in the order in which Darknet stores them."""
        vectors = ("beta", "gamma", "mean", "variance") if self.norm else ("bias",)
        return {
            **dict.fromkeys(vectors, (self.outputs,)),
            "kernel": (self.outputs, self.inputs, self.kernel, self.kernel),
        }


class Layers(Protocol):
    """The operations that `network` and `csp` need of a framework; `name` is that of the layer."""

    def conv(self, name: str, x: Any) -> Any:
        """Run the convolution of a row of the table."""
        ...

    def block(self, name: str, x: Any) -> Any:
        """Run `csp` with the rows whose names start with `name`."""
        ...

    def second_half(self, x: Any) -> Any:
        """Return the second half of the channels."""
        ...

    def concat(self, name: str, xs: Sequence[Any]) -> Any:
        """Concatenate along the channels; without a name, the layer is the end of the block."""
        ...

    def pool(self, name: str, x: Any) -> Any:
        """Halve height and width by the maximum of 2 x 2 values."""
        ...

    def upsample(self, name: str, x: Any) -> Any:
        """Double height and width by repeating each value."""
        ...

    def site(self, name: str, x: Any) -> Any:
        """Return x; this is a site for attention."""
        ...


def table(outputs: Sequence[int], channels: int = 3) -> tuple[ConvSpec, ...]:
    """Return the convolutions in Darknet's order; `outputs` are the channels of the coarse and the fine head."""
    coarse, fine = outputs
    return (
        ConvSpec("stem1", channels, 32, stride=2),
        ConvSpec("stem2", 32, 64, stride=2),
        *_csp_table("csp1", 64),
        *_csp_table("csp2", 128),
        *_csp_table("csp3", 256),
        ConvSpec("deep", 512, 512),
        ConvSpec("p5", 512, 256, kernel=1),
        ConvSpec("coarse", 256, 512),
        ConvSpec("coarse_head", 512, coarse, kernel=1, norm=False),
        ConvSpec("lateral", 256, 128, kernel=1),
        ConvSpec("fine", 384, 256),
        ConvSpec("fine_head", 256, fine, kernel=1, norm=False),
    )


def network(F: Layers, x: Any) -> tuple[Any, Any]:
    """Run the network on images; return the coarse head's output at stride 32 and the fine head's at stride 16."""
    x = F.conv("stem2", F.conv("stem1", x))
    x = F.pool("pool1", F.block("csp1", x))
    x = F.pool("pool2", F.block("csp2", x))
    x = F.block("csp3", x)
    feat1 = F.second_half(x)  # the part that csp3 concatenated to its input: its 1 x 1 convolution, layer 23 of the cfg
    feat2 = F.conv("deep", F.pool("pool3", x))
    p5 = F.conv("p5", F.site("feat2", feat2))
    up = F.site("up", F.upsample("upsample", F.conv("lateral", p5)))
    joined = F.concat("join", [up, F.site("feat1", feat1)])
    return F.conv("coarse_head", F.conv("coarse", p5)), F.conv("fine_head", F.conv("fine", joined))


def csp(F: Layers, x: Any) -> Any:
    """Run a cross-stage partial block, whose branch uses half of the channels: C channels in, 2 C out."""
    whole = F.conv("whole", x)
    first = F.conv("first", F.second_half(whole))  # route with groups=2, group_id=1
    second = F.conv("second", first)
    return F.concat("", [whole, F.conv("merge", F.concat("join", [second, first]))])


def head_outputs(heads: Sequence[Sequence[Any]], classes: int) -> tuple[int, ...]:
    """Return the channels of the coarse and the fine head: for each anchor a box, its objectness and the classes."""
    return tuple(len(anchors) * (5 + classes) for anchors in heads)


def head_bias(outputs: int, anchors: int) -> list[float]:
    """Return the initial biases of a head: an objectness of 0.01, all others 0.

    Nearly all of the thousands of cells are background, whose loss would otherwise be far larger than that of the boxes
    in the first steps (arXiv 1708.02002, 4.1).
    """
    return ([0.0] * 4 + [BACKGROUND] + [0.0] * (outputs // anchors - 5)) * anchors


def check_size(height: int | None, width: int | None) -> None:
    """Refuse a known height or width that is not a multiple of 32. Raises UsageError."""
    sizes = [size for size in (height, width) if size is not None]
    if any(size < STRIDE or size % STRIDE for size in sizes):
        near = " x ".join(str(max(round(size / STRIDE), 1) * STRIDE) for size in sizes)
        received = " x ".join(map(str, sizes))
        raise UsageError(
            expected=f"height and width as multiples of {STRIDE}", received=received, do=f"resize to {near}"
        )


def placed(attention: Any, phi: int, options: Iterable[str] = ()) -> list[tuple[Any, list[str]]]:
    """Return each mechanism with its site names, from one mechanism for all, a mapping by site, or a number of `PHI`.

    Raises:
        UsageError: an unknown phi or site, or options without a mechanism.
    """
    if isinstance(phi, bool) or not isinstance(phi, int) or not 0 <= phi < len(PHI):
        meanings = ", ".join(f"{number} {name or 'none'}" for number, name in enumerate(PHI))
        raise UsageError(
            expected=f"phi as one of {meanings}",
            received=repr(phi),
            do="use one of these, or name the mechanism: attention='cbam'",
        )
    if phi and attention is not None:
        raise UsageError(
            expected="attention or phi", received=f"attention={attention!r} and phi={phi}", do="leave one of them out"
        )
    chosen = PHI[phi] if attention is None else attention
    if isinstance(chosen, Mapping):
        for site in chosen:
            if site not in SITES:
                raise UsageError(expected="attention by site", received=repr(site), do=nearest(str(site), SITES))
        found = [(mechanism, [f"sites.{site}"]) for site, mechanism in chosen.items() if mechanism is not None]
    else:
        found = [] if chosen is None else [(chosen, [f"sites.{site}" for site in SITES])]
    if options and not found:
        received = f"{', '.join(options)} without a mechanism"
        raise UsageError(
            expected="options of a mechanism",
            received=received,
            do="name one, as in attention='cbam', or check the spelling",
        )
    return found


def _csp_table(name: str, channels: int) -> tuple[ConvSpec, ...]:
    half = channels // 2
    return (
        ConvSpec(f"{name}.whole", channels, channels),
        ConvSpec(f"{name}.first", half, half),
        ConvSpec(f"{name}.second", half, half),
        ConvSpec(f"{name}.merge", channels, channels, kernel=1),
    )
