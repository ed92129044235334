"""The goals of the kernels on a GPU, and whether a result of `kernels --device cuda` meets them."""

from collections.abc import Mapping
from typing import Any

from benchmarks.options import Shape

NO_GPU = "Expected a GPU for --device cuda. Received none that torch can use. Do: leave --device out."
BLOCKS, SHARED = 8, 227 * 1024  # of a cluster on Hopper, and the bytes of shared memory that a block can have
MOST_ON_CHIP, MOST_ELSEWHERE = 1.15, 1.4  # units of x.clone()
TIMES_AS_FAST = {"cbam": 1.5, "coordinate": 1.5}  # as torch.compile of the plain operations


def goals(shape: Shape, item: int, mechanism: str, measure: str) -> dict[str, float]:
    """Return the goals of a cell, for values of `item` bytes; those of training compare with the compiler alone."""
    _, c, h, w = shape
    most = MOST_ON_CHIP if c * h * w * item <= BLOCKS * SHARED else MOST_ELSEWHERE
    of_forward = {"most": most} if measure == "forward" else {}
    return of_forward | ({"times_as_fast": TIMES_AS_FAST[mechanism]} if mechanism in TIMES_AS_FAST else {})


def met(goal: Mapping[str, float], calls: Mapping[str, Mapping[str, Any]]) -> dict[str, bool | None]:
    """Return whether each goal is met, None where a call that it compares is missing."""
    ours, compiled = (calls.get(name, {}).get("ratio") for name in ("foveate", "plain compiled"))
    if ours is None:
        return dict.fromkeys(goal)
    found: dict[str, bool | None] = {"most": ours <= goal["most"]} if "most" in goal else {}
    if "times_as_fast" in goal:
        found["times_as_fast"] = None if compiled is None else compiled / ours >= goal["times_as_fast"]
    return found
