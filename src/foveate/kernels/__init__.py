"""Foveate's own kernels; FOVEATE_KERNELS or `using` say whether they may run. Importing this needs no torch."""

from typing import Any

from foveate.kernels import chosen
from foveate.kernels.chosen import using as using


def unavailable() -> str | None:
    """Return why this installation has no kernels, None where it has them."""
    from foveate.kernels import ops

    return ops.unavailable if chosen.choice == "off" else ops.load()


def description() -> str:
    """Return the instruction set in use, such as "avx2"; else the user's choice, or why there are no kernels."""
    from foveate.kernels import ops

    return (
        f"FOVEATE_KERNELS={chosen.choice}"
        if chosen.choice in ("off", "reference")
        else ops.load() or ops.instruction_set()
    )


def why_not(module: Any, x: Any) -> str | None:
    """Return why a bound mechanism would run as plain operations on feature maps x, None where a kernel would run."""
    return module.why_no_kernel(x)
