"""The device to compute on."""

import os

import torch

from foveate.errors import UsageError


def pick_device(name: str) -> str:
    """Return the device to compute on; "auto" gives the first that is there: cuda, mps, cpu.

    Raises UsageError for an absent device.
    """
    there = [
        "cpu",
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if device in there)
    if name not in there:
        raise UsageError(
            expected=f"a device of this machine: {', '.join(there)} or auto", received=repr(name), do="change --device"
        )
    return name


def gpus_of(device: str) -> list[str]:
    """Return the GPUs that share the trials on a device, named as in CUDA_VISIBLE_DEVICES; [] unless "cuda"."""
    count = torch.cuda.device_count() if device == "cuda" and torch.cuda.is_available() else 0
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else list(map(str, range(count)))
