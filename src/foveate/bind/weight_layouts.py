"""The names and the order of axes of weight arrays in torch and in Keras."""

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
# The axes of Keras's kernels in the order of torch's, by rank: (k, k, inputs, outputs) -> (outputs, inputs, k, k).
TO_TORCH = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0)}
FROM_TORCH = {rank: tuple(map(order.index, range(rank))) for rank, order in TO_TORCH.items()}
CONVOLUTION = {"weight": "kernel", "bias": "bias"}  # torch's names and Keras's
# A batch norm's weights: torch's names, and Keras's in its own order.
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def array(value: Any) -> np.ndarray[Any, Any]:
    """Return a tensor of either framework, or an array, as an array; bfloat16 as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    value = np.asarray(value)
    return value.astype("float32") if value.dtype.name == "bfloat16" else value
