"""What options of several mechanisms mean, for the mechanisms' pages; the others stand in the TOML of the mechanism."""

from foveate.facts import facts
from foveate.mechanisms import built_in
from foveate.spec import Mechanism

MEANINGS = {
    "bias": "Whether the two layers of the channel gate have a bias.",
    "kernel_size": "The side of the spatial gate's convolution, an odd number.",
    "norm": "Whether a batch norm follows the spatial gate's convolution.",
    "order": "Which gate comes first. With `parallel` both read x.",
    "pools": "The poolings of each channel, one or several of avg, max, lp and lse. Their results are added.",
    "reduction": "The hidden units are the channels divided by this number, or times it where it is between 0 and 1.",
    "spatial_bias": "Whether the spatial gate's convolution has a bias.",
}


def meaning(kind: type[Mechanism], option: str) -> str:
    """Return the meaning of an option of a mechanism; "" where nothing says it."""
    shared = MEANINGS if built_in().get(kind.name) is kind else {}
    return facts(kind).get("meanings", {}).get(option) or shared.get(option, "")
