"""The meaning of each option for the mechanisms' pages, by its name, or by `mechanism.name` where meanings differ."""

MEANINGS = {
    "activation": "The function after the squeeze.",
    "beta": "The number added to log2 of the channels in the adaptive kernel size.",
    "bias": "Whether the two layers of the channel gate have a bias.",
    "context_channels": "The channels of the context. `None`: as many as those of x.",
    "conv_kernel_size": "The side of the first convolution, an odd number.",
    "coordinate.bias": "Whether the three convolutions have a bias.",
    "cross.activation": "The function after each of the three linear maps, or `None`.",
    "dim": "The width of queries and keys. `None`: the channels of x.",
    "eca.kernel_size": "The kernel size along the channels, an odd number. `None`: computed from the channels.",
    "eps": "The number that the batch norm adds to the variance.",
    "gamma": "The divisor of log2 of the channels in the adaptive kernel size.",
    "kernel_size": "The side of the spatial gate's convolution, an odd number.",
    "min_hidden": "The minimum number of hidden units.",
    "norm": "Whether a batch norm follows the spatial gate's convolution.",
    "order": "Which gate comes first. With `parallel` both read x.",
    "out_channels": "The channels of the output. `None`: as many as those of x.",
    "pools": "The poolings of each channel, one or several of avg, max, lp and lse. Their results are added.",
    "reduction": "The hidden units are the channels divided by this number, or times it where it is between 0 and 1.",
    "scale": "Whether products of queries and keys are divided by the square root of `dim`.",
    "spatial.bias": "Whether the convolution has a bias.",
    "spatial_bias": "Whether the spatial gate's convolution has a bias.",
}


def meaning(mechanism: str, option: str) -> str:
    """Return the meaning of an option of a mechanism. Raises KeyError for an option without an entry above."""
    return MEANINGS.get(f"{mechanism}.{option}") or MEANINGS[option]
