"""What each option of a mechanism means, for the pages of the mechanisms: by its name, or by `mechanism.name` where they differ."""

MEANINGS = {
    "activation": "The function after the squeeze.",
    "beta": "What the adaptive kernel size adds to log2 of the channels.",
    "bias": "Whether the two layers of the channel gate have a bias.",
    "context_channels": "The channels of the context. `None`: as many as those of x.",
    "conv_kernel_size": "The side of the first convolution, an odd number.",
    "coordinate.bias": "Whether the three convolutions have a bias.",
    "cross.activation": "The function after each of the three linear maps, or `None`.",
    "dim": "The width of queries and keys. `None`: the channels of x.",
    "eca.kernel_size": "How many neighbouring channels the convolution reads, an odd number. `None`: computed from the channels.",
    "eps": "What the batch norm adds to the variance.",
    "gamma": "What the adaptive kernel size divides log2 of the channels by.",
    "kernel_size": "The side of the spatial gate's convolution, an odd number.",
    "min_hidden": "The least number of hidden units.",
    "norm": "Whether a batch norm follows the spatial gate's convolution.",
    "order": "Which gate comes first. With `parallel` both read x.",
    "out_channels": "The channels of the output. `None`: as many as those of x.",
    "pools": "How the channel gate summarises each channel: avg, max, lp or lse, one or several. Their results are added.",
    "reduction": "The hidden units are the channels divided by this number. A number between 0 and 1 multiplies the channels.",
    "scale": "Whether products of queries and keys are divided by the square root of `dim`.",
    "spatial.bias": "Whether the convolution has a bias.",
    "spatial_bias": "Whether the spatial gate's convolution has a bias.",
}


def meaning(mechanism: str, option: str) -> str:
    """Return what an option of a mechanism means. Raises KeyError for an option that nobody has explained."""
    return MEANINGS.get(f"{mechanism}.{option}") or MEANINGS[option]
