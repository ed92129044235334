"""The speed targets of the kernels, and how often each mechanism must read and write the feature map."""

from typing import Any, NamedTuple

from benchmarks.options import SHAPES, Shape

# The longest allowed times in units of x.clone(), for float32, both layouts and the first three shapes.
LARGE, SMALLEST_OF_LARGE = SHAPES[:3], SHAPES[2]
MOST = {
    "forward": {"se": 1.5, "eca": 1.5, "channel": 1.5, "spatial": 1.6, "cbam": 2.0, "coordinate": 2.0},
    "training": {"se": 4.0, "eca": 4.0, "channel": 4.0, "spatial": 6.0, "cbam": 7.0, "coordinate": 6.0},
}
MOST_FORWARD_SMALLEST = 2.6  # cbam and coordinate: their small matrices take time with 1024 channels of 14 x 14
# Elsewhere no peer may be faster; these two mechanisms must be this many times as fast as the best peer.
TIMES_AS_FAST, ONE_SAMPLE = {"cbam": 3.0, "coordinate": 3.0}, SHAPES[4]

# The longest allowed times of a whole ResNet-50, relative to the plain host in the same mode.
HOST = {
    "eager": {"se": 1.03, "eca": 1.03, "cbam": 1.06, "coordinate": 1.06},
    "compiled": {"se": 1.02, "eca": 1.02, "cbam": 1.05, "coordinate": 1.05},
}

# YOLOv4-tiny: the time of the network with attention relative to the plain network, and the largest share of the other
# steps in predicting one picture.
DETECTION = {"attention": 1.03, "around": 0.15}


class Passes(NamedTuple):
    """How often the map, or another map of its size, is read and written."""

    reads: int
    writes: int


# Forward reads x once for each gate that must be complete before the next begins, and once more to scale it. Backward
# reads dy and x for the gradients of the gates, x again where the second gate adds to the first gate's gradient, then
# dy to write dx. (It reads x once more where a maximum has ties.)
PASSES = {
    "forward": {
        **dict.fromkeys(("se", "eca", "channel", "spatial", "coordinate"), Passes(2, 1)),
        "cbam": Passes(3, 1),
    },
    "training": {
        **dict.fromkeys(("se", "eca", "channel", "spatial", "coordinate"), Passes(5, 2)),
        "cbam": Passes(7, 2),
    },
}
# With a cache that holds the map from one pass to the next: x -> y, then dy and x -> dx.
ONCE = {"forward": Passes(1, 1), "training": Passes(3, 2)}


def target(shape: Shape, dtype: str, mechanism: str, measure: str) -> dict[str, Any]:
    """Return `{"most": units of clone}`, or `{"times_as_fast": factor over the best peer}` where no limit is set."""
    if dtype == "float32" and shape in LARGE:
        most = MOST[measure][mechanism]
        small = measure == "forward" and shape == SMALLEST_OF_LARGE and mechanism in TIMES_AS_FAST
        return {"most": MOST_FORWARD_SMALLEST if small else most}
    return {"times_as_fast": TIMES_AS_FAST.get(mechanism, 1.0) if shape == ONE_SAMPLE else 1.0}
