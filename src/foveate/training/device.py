"""Where to compute."""

import os

import torch

from foveate.errors import UsageError


def pick_device(name: str) -> str:
    """Return the device to compute on: for "auto" a CUDA GPU where there is one, else the CPU. Raises UsageError for one that is absent."""
    there = [
        "cpu",
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]
    if name == "auto":
        return "cuda" if "cuda" in there else "cpu"
    if name not in there:
        raise UsageError(
            expected=f"a device of this machine: {', '.join(there)} or auto", received=repr(name), do="change --device"
        )
    return name


def gpus_of(device: str) -> list[str]:
    """Return the GPUs that trials on a device are shared out to, each as CUDA_VISIBLE_DEVICES names it; [] for all but "cuda"."""
    count = torch.cuda.device_count() if device == "cuda" and torch.cuda.is_available() else 0
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else list(map(str, range(count)))
