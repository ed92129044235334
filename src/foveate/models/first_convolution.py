"""Fit the kernel of a first convolution to images of one channel or of three."""

from typing import Any

from foveate.errors import UsageError


def fit_channels(kernel: Any, channels: int, source: object) -> Any:
    """Return a kernel (outputs, inputs, k, k) for another number of input channels; of NumPy or torch.

    From RGB to grey, the kernels of the three channels are added: a grey image gives what it gave as RGB. From grey,
    each channel gets an equal share: the network sees the mean of the channels.

    Raises:
        UsageError: neither number is 1.
    """
    given = kernel.shape[1]
    if given == channels:
        return kernel
    if channels == 1:
        return kernel.sum(1)[:, None]
    if given == 1:
        return kernel[:, [0] * channels] / channels
    raise UsageError(
        expected=f"a first convolution of {channels} channels, or of one",
        received=f"{source}, whose first convolution reads {given}",
        do=f"build the network for {given} channels",
    )
