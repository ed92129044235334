"""Where to compute."""

import torch

from foveate.errors import UsageError


def pick_device(name: str) -> str:
    """Return the device to compute on: "auto" is a GPU where there is one. Raises UsageError for one that is not there."""
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    if name == "auto":
        return there[1] if len(there) > 1 else "cpu"
    if name not in there:
        raise UsageError(expected=f"a device of this machine: {', '.join(there)} or auto", received=repr(name), do="change --device")
    return name
